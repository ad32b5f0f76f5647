package queue

import (
	"reflect"
	"strconv"
	"strings"
	"testing"
	"time"
)

// TestDefaultsAgree: the tags are what people read, DefaultConfig is what tests use.
func TestDefaultsAgree(t *testing.T) {
	t.Parallel()
	v := reflect.ValueOf(DefaultConfig())
	for i := range v.NumField() {
		f := v.Type().Field(i)
		if f.Tag.Get("key") == "" || f.Tag.Get("doc") == "" {
			t.Errorf("%s has no key or no doc", f.Name)
		}
		text := f.Tag.Get("default")
		var want any
		switch kind := f.Type.Kind(); {
		case f.Type == reflect.TypeFor[time.Duration]():
			want, _ = time.ParseDuration(text)
		case kind == reflect.Int64:
			number := strings.TrimRight(text, "GMiB")
			n, err := strconv.ParseInt(number, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			want = n << map[string]int{"GiB": 30, "MiB": 20}[text[len(number):]]
		case kind == reflect.Bool:
			want = text == "true"
		case kind == reflect.String:
			want = text
		default:
			continue
		}
		if got := v.Field(i).Interface(); got != want {
			t.Errorf("%s: the tag says %v, DefaultConfig %v", f.Name, want, got)
		}
	}
}

func TestValidateNamesEveryFault(t *testing.T) {
	t.Parallel()
	cfg := DefaultConfig()
	cfg.Dir = "/x"
	if err := cfg.Validate(); err != nil {
		t.Fatalf("the defaults: %v", err)
	}
	bad := Config{DomainLifetimes: map[string]time.Duration{"x.example": 1}, RefusedExpiry: -1, ReserveBytes: -1, RetryFirst: 5}
	err := bad.Validate()
	if err == nil {
		t.Fatal("nonsense is valid")
	}
	for _, key := range []string{
		"dir", "lifetime", "erase_after", "retry_first", "domain_lifetimes.x.example", "refused_expiry", "retry_max", "reserve_bytes", "spill_bytes",
	} {
		if !strings.Contains(err.Error(), "queue."+key+": ") {
			t.Errorf("no fault for %s in:\n%v", key, err)
		}
	}
}
