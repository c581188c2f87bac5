// Package signout simulates programs that sign users in, refresh and sign them
// out on one store, in every order, and checks that a sign-out sticks. It has
// nothing but tests.
package signout
