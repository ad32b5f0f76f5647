// Package sieve keeps the Sieve scripts of an account the same at both sites, over
// ManageSieve (RFC 5804).
//
// Scripts are few and small, so each pass reads all of them. What changed on one
// side since the last pass goes to the other. What changed on both sides
// differently is a conflict: the preferred side's script keeps the name, and the
// other one is kept under a new name on both sides. A script is deleted only where
// it was deleted on the other side and has not been changed since.
//
//	left, err := sieve.Dial(ctx, addr, server, login)
//	report, err := sieve.Sync(ctx, sieve.Pair{A: left, B: right}, file, sieve.Options{})
package sieve
