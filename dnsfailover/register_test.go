package dnsfailover

import (
	"errors"
	"testing"
)

const registerText = "v=us1;epoch=7;holder=a;state=claim;by=b;nonce=5f0c9d2e11aa73b4;cfg=0d9e8a77;at=1795540000"

func TestRegisterText(t *testing.T) {
	want := Register{Epoch: 7, Holder: "a", State: Claimed, By: "b", Nonce: "5f0c9d2e11aa73b4", Config: "0d9e8a77", At: 1795540000}
	if want.String() != registerText {
		t.Errorf("written as %s", want)
	}
	got, err := ParseRegister(registerText)
	if err != nil || got != want {
		t.Errorf("read as %+v, %v", got, err)
	}
	want.Paused = true
	got, err = ParseRegister(registerText + ";paused=1")
	if err != nil || got != want {
		t.Errorf("read as %+v, %v", got, err)
	}
}

func TestRegisterStrict(t *testing.T) {
	for _, text := range []string{
		"", "v=us1", registerText + ";", registerText + ";paused=0", registerText + ";x=1", " " + registerText,
		"v=us2;epoch=7;holder=a;state=claim;by=b;nonce=5f0c9d2e11aa73b4;cfg=0d9e8a77;at=1795540000",
		"v=us1;epoch=07;holder=a;state=claim;by=b;nonce=5f0c9d2e11aa73b4;cfg=0d9e8a77;at=1795540000",
		"v=us1;epoch=0;holder=a;state=claim;by=b;nonce=5f0c9d2e11aa73b4;cfg=0d9e8a77;at=1795540000",
		"v=us1;epoch=7;holder=;state=claim;by=b;nonce=5f0c9d2e11aa73b4;cfg=0d9e8a77;at=1795540000",
		"v=us1;epoch=7;holder=b;state=claim;by=b;nonce=5f0c9d2e11aa73b4;cfg=0d9e8a77;at=1795540000",
		"v=us1;epoch=7;holder=a;state=open;by=b;nonce=5f0c9d2e11aa73b4;cfg=0d9e8a77;at=1795540000",
		"v=us1;epoch=7;holder=a;state=held;by=b;nonce=5F0C9D2E11AA73B4;cfg=0d9e8a77;at=1795540000",
		"v=us1;epoch=7;holder=a;state=held;by=b;nonce=5f;cfg=0d9e8a77;at=1795540000",
		"v=us1;holder=a;epoch=7;state=held;by=b;nonce=5f0c9d2e11aa73b4;cfg=0d9e8a77;at=1795540000",
	} {
		if r, err := ParseRegister(text); !errors.Is(err, ErrRegister) {
			t.Errorf("%q is read as %+v, %v", text, r, err)
		}
	}
}

func FuzzParseRegister(f *testing.F) {
	f.Add(registerText)
	f.Add(registerText + ";paused=1")
	f.Fuzz(func(t *testing.T, text string) {
		r, err := ParseRegister(text)
		if err == nil && r.String() != text {
			t.Errorf("%q is written as %q", text, r)
		}
		if err != nil && !errors.Is(err, ErrRegister) {
			t.Errorf("%q: %v", text, err)
		}
	})
}

func TestCanonical(t *testing.T) {
	for _, tc := range []struct{ typ, in, want string }{
		{"A", "192.0.2.1", "192.0.2.1"},
		{"AAAA", "2001:DB8:0::1", "2001:db8::1"},
		{"MX", "010  MX1.example.NET", "10 mx1.example.net."},
		{"A", "2001:db8::1", ""},
		{"AAAA", "192.0.2.1", ""},
		{"AAAA", "::ffff:192.0.2.1", ""},
		{"AAAA", "fe80::1%eth0", ""},
		{"MX", "mx1.example.net", ""},
		{"MX", "70000 mx1.example.net", ""},
		{"TXT", "x", ""},
	} {
		got, err := Canonical(tc.typ, tc.in)
		if got != tc.want || (err != nil) != (tc.want == "") {
			t.Errorf("Canonical(%s, %s) = %q, %v; want %q", tc.typ, tc.in, got, err, tc.want)
		}
	}
}
