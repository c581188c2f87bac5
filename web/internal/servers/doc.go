// Package servers gives tests real Redis, PostgreSQL and MariaDB servers of their own:
// started in a temporary folder, on a loopback address that nothing else uses,
// and ended with the test, even with one that is killed.
//
// It is for Linux, where a process can be told to end with its parent.
package servers
