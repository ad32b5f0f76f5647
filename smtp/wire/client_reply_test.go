package wire

import (
	"bufio"
	"errors"
	"io"
	"strings"
	"testing"
)

func TestReadReply(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 5000)
	tests := []struct{ in, want string }{
		{"250 OK\r\n", "250 OK"},
		{"250\r\n", "250"},
		{"250 2.1.0 Ok\r\n", "250 2.1.0 Ok"},
		{"550-5.1.1 no\r\n550 5.1.1 such user\r\n", "550 5.1.1 no / such user"},
		{"550 4.1.1 class differs\r\n", "550 4.1.1 class differs"},
		{"250-one\r\n250-two\r\n250 three\r\n", "250 one / two / three"},
		{"550 bad\x1b[31m\r\n", "550 bad?[31m"},
		{"550 \xff\xfe\r\n", "550 ??"},
		{"550 Empfänger unbekannt\r\n", "550 Empfänger unbekannt"},
		{"250 OK\n", "!"},
		{"250-a\r\n251 b\r\n", "!"},
		{"25 OK\r\n", "!"},
		{"150 OK\r\n", "!"},
		{"650 OK\r\n", "!"},
		{"250_OK\r\n", "!"},
		{"HTTP/1.1 400 Bad Request\r\n", "!"},
		{"\r\n", "!"},
		{"250 " + long + "\r\n", "!"},
		{strings.Repeat("250-x\r\n", 300) + "250 x\r\n", "!"},
		{strings.Repeat("250-"+long[:3000]+"\r\n", 30) + "250 x\r\n", "!"},
		{"250 cut", "EOF"},
		{"250-cut\r\n", "EOF"},
	}
	for _, tt := range tests {
		rep, err := readReply(bufio.NewReaderSize(strings.NewReader(tt.in), maxReplyLineBytes))
		got := rep.String()
		switch {
		case errors.Is(err, ErrReply):
			got = "!"
		case errors.Is(err, io.EOF):
			got = "EOF"
		case err != nil:
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%.60q: got %q, want %q", tt.in, got, tt.want)
		}
	}
}

func FuzzReply(f *testing.F) {
	for _, s := range []string{"250 OK\r\n", "250-a\r\n250 2.0.0 b\r\n", "421 4.3.2 bye\r\n", "250", "354 go\r\n\r\n", "550-5.1.1 x\r\n550 5.1.1\r\n"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		br := bufio.NewReaderSize(strings.NewReader(string(in)), maxReplyLineBytes)
		for range 64 {
			rep, err := readReply(br)
			if err != nil {
				return
			}
			if rep.Code < 200 || rep.Code > 599 {
				t.Fatalf("code %d", rep.Code)
			}
			if len(rep.Text) > maxReplyBytes*3 || strings.Count(rep.Text, "\n") >= maxReplyLines {
				t.Fatalf("unbounded text: %d bytes", len(rep.Text))
			}
			if strings.ContainsFunc(rep.Text, func(r rune) bool { return r != '\n' && (r < ' ' || r == 0x7f) }) {
				t.Fatalf("control character in %q", rep.Text)
			}
			if e := rep.Enhanced; e != "" && int(e[0]-'0') != rep.Code/100 {
				t.Fatalf("class of %s is not that of %d", e, rep.Code)
			}
		}
	})
}
