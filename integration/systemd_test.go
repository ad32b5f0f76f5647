package integration

import (
	"os/exec"
	"regexp"
	"strconv"
	"testing"

	"understudy/integration/require"
)

// TestUnitExposure asks systemd how much the daemon's unit leaves open.
func TestUnitExposure(t *testing.T) {
	require.Command(t, "systemd-analyze")
	out, err := exec.CommandContext(t.Context(), "systemd-analyze", "security", "--offline=true", "../docs/systemd/understudy.service").CombinedOutput()
	if err != nil {
		t.Fatalf("systemd-analyze: %v\n%s", err, out)
	}
	m := regexp.MustCompile(`Overall exposure level for understudy\.service: ([0-9.]+)`).FindSubmatch(out)
	if m == nil {
		t.Fatalf("no verdict in:\n%s", out)
	}
	level, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		t.Fatal(err)
	}
	if level >= 3 {
		t.Errorf("exposure %v, want below 3:\n%s", level, out)
	}
}
