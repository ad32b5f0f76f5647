// Command understudy lets two mail servers in two datacentres stand in for each
// other. See README.md; each subcommand is one file here.
package main

func main() {}
