package storetest_test

import (
	"testing"

	"understudy/imapsync"
	"understudy/imapsync/storetest"
)

func TestServer(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]storetest.Features{
		"everything":   {},
		"no condstore": {NoCondstore: true},
		"no uidplus":   {NoUIDPlus: true},
		"no gid":       {NoGID: true},
		"no keywords":  {NoKeywords: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			storetest.Run(t, func(*testing.T) imapsync.Store { return storetest.NewServer(f).Store() })
		})
	}
}
