// Package queue is the spool: it keeps what the MX front has answered 250 for,
// decides when it is tried again, and never loses it.
package queue
