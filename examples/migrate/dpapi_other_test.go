//go:build !windows

package main

import "testing"

func testDPAPIFile(*testing.T) {}
