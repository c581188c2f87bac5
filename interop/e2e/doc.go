// Package e2e runs package interop beside the real azidentity/cache of the Azure
// SDK for Go. It is a module of its own, so that the modules that only its tests
// need are not required by those who import tokenkeep.
package e2e
