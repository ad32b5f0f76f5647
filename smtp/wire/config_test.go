package wire

import (
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestDefaultsAreTheTags holds DefaultServerConfig to what the tags promise.
func TestDefaultsAreTheTags(t *testing.T) {
	t.Parallel()
	v := reflect.ValueOf(DefaultServerConfig())
	for i := range v.NumField() {
		f, want := v.Type().Field(i), v.Type().Field(i).Tag.Get("default")
		if f.Tag.Get("key") == "" || f.Tag.Get("doc") == "" {
			t.Errorf("%s: no key or no doc", f.Name)
		}
		var got string
		switch x := v.Field(i).Interface().(type) {
		case time.Duration:
			d, err := time.ParseDuration(want)
			if err != nil || d != x {
				t.Errorf("%s is %v, tag says %q", f.Name, x, want)
			}
			continue
		case int64:
			want = strings.NewReplacer("MiB", strings.Repeat("*", 2), "KiB", "*").Replace(want)
			n, err := strconv.ParseInt(strings.TrimRight(want, "*"), 10, 64)
			if err != nil || n<<(10*strings.Count(want, "*")) != x {
				t.Errorf("%s is %d, tag says %q", f.Name, x, want)
			}
			continue
		case int:
			got = strconv.Itoa(x)
		case []string:
			got = strings.Join(x, ",")
		}
		if got != want {
			t.Errorf("%s is %q, tag says %q", f.Name, got, want)
		}
	}
	if err := DefaultServerConfig().Validate(); err != nil {
		t.Error(err)
	}
}

func TestValidateNamesEveryFault(t *testing.T) {
	t.Parallel()
	err := ServerConfig{MinDataRate: -1, GreetDelay: -1, ProxyFrom: []string{"x"}, XClientFrom: []string{"10.0.0.1/8"}}.Validate()
	if err == nil {
		t.Fatal("no fault found")
	}
	for f := range reflect.TypeFor[ServerConfig]().Fields() {
		key := f.Tag.Get("key")
		if !strings.Contains("\n"+err.Error(), "\n"+key+": ") {
			t.Errorf("%s is not in %v", key, err)
		}
	}
}

func TestNetworks(t *testing.T) {
	t.Parallel()
	nets, err := parseNetworks([]string{"192.0.2.1", "10.0.0.0/8", "2001:db8::/32"})
	if err != nil {
		t.Fatal(err)
	}
	for addr, want := range map[string]bool{
		"192.0.2.1": true, "192.0.2.2": false, "10.1.2.3": true, "::ffff:10.1.2.3": true, "2001:db8::1": true, "2001:db9::1": false, "::1": false,
	} {
		if got := nets.contains(netip.MustParseAddr(addr)); got != want {
			t.Errorf("%s: %v", addr, got)
		}
	}
}
