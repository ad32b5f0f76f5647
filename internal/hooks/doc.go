// Package hooks runs what needs root for a daemon that is not root.
//
// The daemon has no right but to bind port 25. What an operator wants done as
// root on an event (reload a web server, promote a database) is a file in one
// directory. A second, socket-activated unit, understudy-hooks, runs as root,
// takes the file's name over its socket, checks that directory and file belong
// to root and that nobody else may write them, runs the file with a time limit
// and returns its exit status and output. It runs nothing else: no path, no
// shell, no argument that the file did not ask for by reading its environment.
//
//	result, err := hooks.Call(ctx, "/run/understudy/hooks.sock", hooks.Request{Name: "reload-nginx"})
package hooks
