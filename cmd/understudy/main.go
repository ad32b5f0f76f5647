// Command understudy lets two mail servers in two datacentres stand in for each
// other.
//
// Each subcommand is one file with one constructor, listed in root.go. Exit
// codes, which scripts rely on, are in exit.go: 0 done, 1 not everything done,
// 2 usage or configuration error, 3 the daemon is not reachable.
//
// For example, to see every fault of a configuration at once:
//
//	understudy -c ./understudy.yaml check-config
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	os.Exit(realMain())
}

// realMain is main with its cleanups done before the exit.
func realMain() int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	a := &app{In: os.Stdin, Out: os.Stdout, Err: os.Stderr, Environ: os.Environ()}
	return a.run(ctx, os.Args[1:])
}
