package replica

import (
	"fmt"
	"io"

	"understudy/spamsync"
)

// WriteRspamdConfig writes what Rspamd must be told: reads from this site's Redis,
// writes through the endpoint. It returns the bytes written.
//
// The Redis that is read is named twice: Rspamd 3.4 to 3.6 merge the lists of read
// and write servers by index, and with one of each load their scripts on the write
// server only.
func WriteRspamdConfig(w io.Writer, c spamsync.RedisConfig) (int, error) {
	user := ""
	if c.Username != "" {
		user = fmt.Sprintf("username = %q;\n", c.Username)
	}
	if c.PasswordFile != "" {
		user += "password = \"...\"; # the word in " + c.PasswordFile + "\n"
	}
	if c.DB != 0 {
		user += fmt.Sprintf("db = \"%d\";\n", c.DB)
	}
	return fmt.Fprintf(w, `# /etc/rspamd/local.d/redis.conf
# Reads go to this site's Redis, writes where understudy leads them.
# The first is there twice on purpose: with one of each, Rspamd 3.4 to 3.6 load
# their scripts on the write server only.
read_servers = "%[1]s,%[1]s";
write_servers = "%[2]s";
timeout = 0.5s;
%[3]s
# /etc/rspamd/local.d/classifier-bayes.conf
backend = "redis";

# /etc/rspamd/local.d/worker-fuzzy.inc, where Rspamd's own fuzzy storage is used:
# everything through the endpoint, so that no hash is added to a Redis that only reads.
backend = "redis";
servers = "%[2]s";

# /etc/rspamd/local.d/greylist.conf, /etc/rspamd/local.d/ratelimit.conf and other
# modules need nothing: they take redis.conf.
`, c.Address, c.WriteListen, user)
}
