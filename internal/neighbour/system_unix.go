//go:build unix && !linux

package neighbour

const noAccessTime = 0
