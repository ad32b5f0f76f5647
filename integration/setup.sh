#!/usr/bin/env bash
# Prepares a machine for `make test`. On Debian as root it installs what the
# tests drive, without starting a single service; elsewhere it prints what is
# missing. It never fails: a test that lacks something says so and is skipped
# (in CI, where CI=true, it fails instead).
set -uo pipefail

# command:package, and what it is for.
wanted=(
	gcc:gcc                    # the race detector
	postfix:postfix            # the primary of the stories; the rival of bench-mx
	smtp-source:postfix        # load
	dovecot:dovecot-core       # LMTP next hop, mailboxes
	/usr/lib/dovecot/lmtp:dovecot-lmtpd
	/usr/lib/dovecot/imap:dovecot-imapd
	cyrmaster:cyrus-common     # the other IMAP server; see cyrus_aside
	/usr/lib/dovecot/managesieve-login:dovecot-managesieved  # behind the tunnel
	nginx:nginx
	haproxy:haproxy            # the rival of bench-tunnel
	/usr/lib/dovecot/managesieve:dovecot-managesieved # scripts of both sites
	mbsync:isync               # rivals of bench-imap
	interimap:interimap
	swaks:swaks                # a client written by others
	fusermount3:fuse3          # the power-cut file system
	ip:iproute2                # network namespaces
	systemd-analyze:systemd    # how much the unit leaves open
	fail2ban-regex:fail2ban    # whether its filter finds our refusals
	redis-server:redis-server  # what replicas share; a recipient source
	rspamd:rspamd              # spam engines: their own servers
	spamd:spamd
	clamd:clamav-daemon
	opendkim:opendkim
	pg_lsclusters:postgresql   # recipient sources: their own servers
	mariadbd:mariadb-server
	slapd:slapd
	knotd:knot                 # the register's name servers
	named:bind9
	pdns_server:pdns-server
	/usr/share/doc/pdns-backend-sqlite3/schema.sqlite3.sql:pdns-backend-sqlite3
	sqlite3:sqlite3
)

missing_packages() {
	local entry command package
	for entry in "${wanted[@]}"; do
		command=${entry%%:*} package=${entry##*:}
		[[ $command == /* && -e $command ]] || command -v "$command" >/dev/null || PATH=$PATH:/usr/sbin:/sbin command -v "$command" >/dev/null || echo "$package"
	done | sort -u
	# The C library's headers have no command; a compiler without them is of no use.
	[ -e /usr/include/stdlib.h ] || echo libc6-dev
}

policy=/usr/sbin/policy-rc.d
placed=
cleanup() {
	if [ -n "$placed" ]; then rm -f "$policy"; fi
}
trap cleanup EXIT

# forbid_services makes Debian's packages leave their services alone.
forbid_services() {
	[ ! -e "$policy" ] || return 0
	printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" && placed=1
}

install_packages() {
	apt-get install -qq -y --no-install-recommends "$@" </dev/null >"$log" 2>&1
}

# cyrus_aside unpacks Cyrus's imapd where it is in nobody's way: Debian does not let
# two IMAP servers be installed, and the tests need both.
cyrus_aside() {
	local dir=/usr/local/lib/understudy-lab/cyrus work
	[ ! -e /usr/lib/cyrus/bin/imapd ] && [ ! -e "$dir/usr/lib/cyrus/bin/imapd" ] || return 0
	[ "$(id -u)" = 0 ] && command -v apt-get >/dev/null || return 0
	work=$(mktemp -d)
	chmod 755 "$work"
	(cd "$work" && apt-get download cyrus-imapd && mkdir -p "$dir" && dpkg-deb -x cyrus-imapd_*.deb "$dir") >/dev/null 2>&1 ||
		echo "setup: could not unpack cyrus-imapd; its tests will be skipped"
	rm -rf "$work"
}

missing=$(missing_packages | tr '\n' ' ')
missing=${missing% }
[ -n "$missing" ] || { cyrus_aside; exit 0; }
if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
	echo "setup: not installed: $missing. The tests that need them will be skipped, each with its reason."
	[ "$(id -u)" = 0 ] || echo "setup: run as root on Debian to have them installed."
	exit 0
fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
echo "setup: installing $missing (no service is started)"
forbid_services
# shellcheck disable=SC2086
if ! apt-get install -s --no-install-recommends $missing >/dev/null 2>&1; then
	apt-get update -qq >/dev/null 2>&1
fi
# An index that is out of date names versions that are gone: fetch it and try once more.
# shellcheck disable=SC2086
install_packages $missing || { apt-get update -qq >/dev/null 2>&1; install_packages $missing; } || {
	echo "setup: apt-get could not install all of: $missing"
	tail -n 5 "$log"
}
rm -f "$log"
missing=$(missing_packages | tr '\n' ' ')
[ -z "$missing" ] || echo "setup: still missing: $missing"
cyrus_aside
exit 0
