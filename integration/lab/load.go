package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"

	"understudy/integration/require"
)

// Load is one run of Postfix's load generator smtp-source.
type Load struct {
	Addr     string
	Messages int
	// Connections are used at once.
	Connections int
	// Bytes is the size of a message.
	Bytes int
	// Reconnect opens a connection for each message.
	Reconnect bool
	From, To  string
}

// Run sends the load. An error names the first reply that was not the good one.
func (l Load) Run(ctx context.Context) error {
	args := []string{
		"-s", strconv.Itoa(l.Connections), "-m", strconv.Itoa(l.Messages), "-l", strconv.Itoa(l.Bytes),
		"-f", l.From, "-t", l.To,
	}
	if !l.Reconnect {
		args = append(args, "-d")
	}
	return command(ctx, "smtp-source", append(args, l.Addr)...)
}

// SourceSend sends one message with smtp-source, which makes it wire format
// itself and puts an empty line at the end of a file: the message must end so.
func SourceSend(ctx context.Context, addr string, m Message) error {
	text, ok := bytes.CutSuffix(m.Text, []byte("\r\n\r\n"))
	if !ok {
		return errors.New("smtp-source needs a message that ends with an empty line")
	}
	m.Text = text
	return withFile(m, func(path string) error {
		return command(ctx, "smtp-source", "-F", path, "-f", m.From, "-t", m.To[0], addr)
	})
}

// SwaksSend sends one message with swaks, which makes it wire format itself and
// ends the last line of a file.
func SwaksSend(ctx context.Context, addr string, m Message) error {
	m.Text = bytes.TrimSuffix(m.Text, []byte("\r\n"))
	return withFile(m, func(path string) error {
		return command(ctx, "swaks", "--server", addr, "--helo", "swaks.lab.test", "--from", m.From, "--to", m.To[0],
			"--data", "@"+path, "--suppress-data", "--hide-all")
	})
}

// withFile hands a message over as a file with LF line ends.
func withFile(m Message, use func(path string) error) error {
	f, err := os.CreateTemp("", "lab-message")
	if err != nil {
		return fmt.Errorf("make message file: %w", err)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(bytes.ReplaceAll(m.Text, []byte("\r\n"), []byte("\n")))
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("write message file: %w", err)
	}
	return use(f.Name())
}

func command(ctx context.Context, name string, args ...string) error {
	path, err := require.Find(name)
	if err != nil {
		return err
	}
	out, err := exec.CommandContext(ctx, path, args...).CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", name, err, bytes.TrimSpace(out))
	}
	return nil
}
