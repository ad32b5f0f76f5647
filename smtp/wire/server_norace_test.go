//go:build !race

package wire

// raceEnabled says that the race detector slows everything down.
const raceEnabled = false
