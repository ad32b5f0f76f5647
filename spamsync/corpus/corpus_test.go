package corpus

import (
	"bytes"
	"net/mail"
	"testing"
)

func TestGenerate(t *testing.T) {
	t.Parallel()
	a, b := Generate(7, 60), Generate(7, 60)
	seen := map[string]bool{}
	spam := 0
	for i := range a {
		if !bytes.Equal(a[i].Message, b[i].Message) || a[i].Addr != b[i].Addr || a[i].Sender != b[i].Sender {
			t.Fatalf("%s differs between two runs", a[i].Name)
		}
		if seen[string(a[i].Message)] || seen[a[i].Name] {
			t.Errorf("%s is there twice", a[i].Name)
		}
		seen[string(a[i].Message)], seen[a[i].Name] = true, true
		if a[i].Spam {
			spam++
		}
		if _, err := mail.ReadMessage(bytes.NewReader(a[i].Message)); err != nil {
			t.Errorf("%s: %v", a[i].Name, err)
		}
		if bare := bytes.Count(a[i].Message, []byte("\n")) - bytes.Count(a[i].Message, []byte("\r\n")); bare != 0 {
			t.Errorf("%s: %d bare line feeds", a[i].Name, bare)
		}
	}
	if spam != 30 {
		t.Errorf("%d of 60 are spam", spam)
	}
	if bytes.Equal(Generate(8, 1)[0].Message, a[0].Message) {
		t.Error("the seed does not matter")
	}
}

func TestShapes(t *testing.T) {
	t.Parallel()
	all := len(sound()) + len(broken())
	list := Shapes(1, 2*all)
	kinds := map[string]bool{}
	for i, s := range list {
		if s.Spam != (i%2 == 0) {
			t.Errorf("%s: class", s.Name)
		}
		kinds[s.Name[:len(s.Name)-5]] = true
	}
	if len(kinds) != 2*all || all < 60 {
		t.Errorf("%d kinds of %d shapes", len(kinds), all)
	}
}
