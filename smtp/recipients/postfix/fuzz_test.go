package postfix

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"testing"
)

// What is read as a netstring is written as the bytes that were read.
func FuzzNetstring(f *testing.F) {
	for _, s := range []string{"0:,", "3:abc,", "03:abc,", "19:domains example.com,", "99999:", ":,", "5:a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		r := bufio.NewReader(strings.NewReader(in))
		consumed := ""
		for {
			s, err := readNetstring(r)
			if err != nil {
				if !errors.Is(err, errNetstring) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("%v", err)
				}
				return
			}
			consumed += string(appendNetstring(nil, s))
			if !strings.HasPrefix(in, consumed) {
				t.Fatalf("%q became %q", in, consumed)
			}
		}
	})
}

func FuzzPolicy(f *testing.F) {
	for _, s := range []string{"a=b\n\n", "request=smtpd_access_policy\nrecipient=a@b\n\n", "\n", "a\n\n", "=x\n\n", "a=b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		r := bufio.NewReaderSize(strings.NewReader(in), maxRequestBytes)
		for {
			attrs, err := readPolicy(r)
			if err != nil {
				if !errors.Is(err, errPolicy) && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Errorf("%v", err)
				}
				return
			}
			if len(attrs) == 0 || len(attrs) > maxAttributes {
				t.Fatalf("%d attributes", len(attrs))
			}
			for name, value := range attrs {
				if name == "" || strings.ContainsAny(name, "=\n") || strings.Contains(value, "\n") {
					t.Fatalf("%q=%q", name, value)
				}
			}
		}
	})
}
