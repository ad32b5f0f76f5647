package main

import (
	"errors"

	"understudy/internal/config"
)

// The exit codes; scripts rely on them.
const (
	exitDone        = 0 // all of it was done
	exitPartly      = 1 // not everything was done: failed, held or different
	exitUsage       = 2 // the command line or the configuration is wrong
	exitUnreachable = 3 // the daemon does not answer on its socket
)

// exitError carries an exit code with the error that caused it.
type exitError struct {
	code int
	// hint asks for a pointer to --help after the message.
	hint bool
	err  error
}

// Error implements error: the cause alone, the code is for the shell.
func (e *exitError) Error() string { return e.err.Error() }

// Unwrap gives the cause.
func (e *exitError) Unwrap() error { return e.err }

// usageError marks a mistake on the command line: exit 2 and a pointer to --help.
func usageError(err error) error { return &exitError{code: exitUsage, hint: true, err: err} }

// configError marks a configuration that cannot be used: exit 2.
func configError(err error) error { return &exitError{code: exitUsage, err: err} }

// unreachableError marks a daemon that does not answer: exit 3.
func unreachableError(err error) error { return &exitError{code: exitUnreachable, err: err} }

// exitCode maps a command's error to the exit code: nil is 0, a marked error
// has its own, the faults of a configuration are 2, and any other error means
// that not everything was done.
func exitCode(err error) int {
	if err == nil {
		return exitDone
	}
	if ee, ok := errors.AsType[*exitError](err); ok {
		return ee.code
	}
	if _, ok := errors.AsType[*config.Error](err); ok {
		return exitUsage
	}
	return exitPartly
}
