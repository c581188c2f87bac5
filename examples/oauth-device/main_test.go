package main

import (
	"testing"

	"github.com/tokenkeep/tokenkeep/examples/internal/oauthdemo"
)

func TestMain(m *testing.M) { oauthdemo.Main(m, main) }

func TestDemo(t *testing.T) { oauthdemo.Test(t, "oauth-device", "by device code") }
