package stream_test

import (
	"errors"
	"testing"

	"understudy/spamsync/replica/stream"
)

func TestFork(t *testing.T) {
	t.Parallel()
	at := func(id string, n int64) stream.Point { return stream.Point{ID: id, Offset: n} }
	info := func(now, before stream.Point) stream.Info { return stream.Info{Now: now, Before: before} }
	var none stream.Point
	for name, c := range map[string]struct {
		follower, home stream.Info
		want           stream.Point
	}{
		"a replica was promoted, the master went on":      {info(at("x", 150), none), info(at("y", 180), at("x", 100)), at("x", 100)},
		"the follower was promoted, home went on":         {info(at("y", 180), at("x", 100)), info(at("x", 150), none), at("x", 100)},
		"the old master crashed and came back before":     {info(at("z", 120), at("x", 80)), info(at("y", 180), at("x", 100)), at("x", 100)},
		"the old master crashed and came back after":      {info(at("z", 140), at("x", 120)), info(at("y", 180), at("x", 100)), at("x", 100)},
		"home crashed and came back before the promotion": {info(at("y", 180), at("x", 100)), info(at("z", 120), at("x", 80)), at("x", 80)},
		"not diverged": {info(at("x", 100), at("w", 50)), info(at("x", 120), at("w", 50)), at("x", 100)},
		"the follower crashed, home has not noticed": {info(at("z", 120), at("x", 80)), info(at("x", 100), none), at("x", 80)},
	} {
		got, err := stream.Fork(c.follower, c.home)
		if err != nil || got != c.want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	if _, err := stream.Fork(info(at("x", 1), at("y", 1)), info(at("z", 1), none)); !errors.Is(err, stream.ErrNoCommonHistory) {
		t.Error(err)
	}
}

func TestParseInfo(t *testing.T) {
	t.Parallel()
	got, err := stream.ParseInfo("# Replication\r\nrole:slave\r\nmaster_host:10.0.0.1\r\nmaster_port:6379\r\nmaster_link_status:up\r\n" +
		"master_replid:aa\r\nmaster_replid2:bb\r\nmaster_repl_offset:100\r\nsecond_repl_offset:51\r\nrepl_backlog_active:1\r\n" +
		"repl_backlog_first_byte_offset:11\r\nrepl_backlog_histlen:90\r\n")
	want := stream.Info{
		Role: "slave", Now: stream.Point{ID: "aa", Offset: 100}, Before: stream.Point{ID: "bb", Offset: 50}, Master: "10.0.0.1:6379",
		LinkUp: true, Backlog: true, BacklogFirst: 10, BacklogBytes: 90,
	}
	if err != nil || got != want {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := stream.ParseInfo("role:master\r\n"); !errors.Is(err, stream.ErrProtocol) {
		t.Error(err)
	}
}
