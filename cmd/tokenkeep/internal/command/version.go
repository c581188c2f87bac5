package command

import (
	"context"
	"runtime"
	"runtime/debug"
)

var versionCommand = &command{
	name: "version", short: "print the version",
	long:     "Prints the version of the program, the Go release that it was built with, and the platform.",
	examples: []string{"tokenkeep version", "tokenkeep version -json"},
	run:      func(context.Context, *call) (report, error) { return newVersion(), nil },
}

type version struct {
	Version  string `json:"version"`
	Go       string `json:"go"`
	Platform string `json:"platform"`
}

func newVersion() *version {
	v := &version{"(devel)", runtime.Version(), runtime.GOOS + "/" + runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		v.Version = info.Main.Version
	}
	return v
}

func (v *version) write(p *printer) { p.line("tokenkeep %s, %s, %s", v.Version, v.Go, v.Platform) }
