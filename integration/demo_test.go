package integration

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
	"time"

	"understudy/integration/lab"
)

// TestDemo plays the demo as `make demo` does and reads its verdict.
func TestDemo(t *testing.T) {
	cmd := exec.CommandContext(t.Context(), lab.Binary(t), "demo", "--messages", "10")
	cmd.WaitDelay = 10 * time.Second
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("demo: %v\n%s", err, out.String())
	}
	text := out.String()
	if strings.Contains(text, "FAIL") || strings.Count(text, "\n  ok ") != 7 {
		t.Errorf("the demo did not prove its seven promises:\n%s", text)
	}
}
