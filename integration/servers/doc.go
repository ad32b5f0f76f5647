// Package servers runs real databases, directories and name servers for tests:
// PostgreSQL, MariaDB, slapd, Redis, Knot, BIND and PowerDNS, each in a directory
// of its own, on loopback addresses or unix sockets, with nothing of the machine's
// configuration. Knot runs with the configuration that docs/dns.md prints.
//
// Invariants:
//
//   - No service of the machine is touched; what was started ends with its test.
//   - A server that is not installed skips the test with the reason printed, and
//     fails it in CI.
//   - A server can be killed, frozen and started again with its data.
//
// Example:
//
//	db := servers.MariaDB(t)
//	db.Exec("CREATE DATABASE mail")
//	db.Kill()  // as a power cut would
//	db.Start() // with the data it had
package servers
