package main

import (
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// newManCommand writes the manual page, for packagers:
// understudy man > understudy.8.
func newManCommand(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    "man",
		Short:  "Write the manual page understudy(8) to standard output",
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a.printf("%s", manPage(cmd.Root()))
			return nil
		},
	}
}

// manPage renders the whole command line in man(7).
func manPage(root *cobra.Command) string {
	var b strings.Builder
	line := func(s string) { b.WriteString(s + "\n") }
	line(`.TH UNDERSTUDY 8 "" "" "System administration"`)
	line(".SH NAME")
	line(`understudy \- ` + roff(strings.ToLower(root.Short[:1])+root.Short[1:]))
	line(".SH SYNOPSIS")
	line(`.B understudy`)
	line(`[\fB\-c\fR \fIFILE\fR] \fICOMMAND\fR [\fIOPTION\fR...]`)
	line(".SH DESCRIPTION")
	line(roff(root.Long))
	line(".SH OPTIONS")
	manFlags(&b, root.PersistentFlags())
	line(".SH COMMANDS")
	manCommands(&b, root)
	line(".SH EXIT STATUS")
	for _, e := range [][2]string{
		{"0", "All of it was done."},
		{"1", "Not everything was done: something failed, is held or differs, and is named on standard error."},
		{"2", "The command line or the configuration is wrong."},
		{"3", "The daemon is not reachable."},
	} {
		line(".TP\n.B " + e[0] + "\n" + e[1])
	}
	line(".SH ENVIRONMENT")
	line("Every single value of the configuration can be set by a variable:")
	line("smtp.queue.lifetime is \\fBUNDERSTUDY_SMTP_QUEUE_LIFETIME\\fR.")
	line("\\fBunderstudy check\\-config \\-\\-explain\\fR lists them.")
	line(".SH FILES")
	line(".TP\n.I " + roff(defaultConfigPath) + "\nThe configuration.")
	return b.String()
}

// manCommands renders the commands below cmd that can be run.
func manCommands(b *strings.Builder, cmd *cobra.Command) {
	for _, c := range cmd.Commands() {
		if !c.IsAvailableCommand() || c.Name() == "completion" || c.Name() == "help" {
			continue
		}
		if c.HasAvailableSubCommands() {
			manCommands(b, c)
			continue
		}
		b.WriteString(".SS " + roff(strings.TrimSpace(strings.TrimSuffix(c.UseLine(), "[flags]"))) + "\n")
		text := c.Long
		if text == "" {
			text = c.Short + "."
		}
		b.WriteString(roff(text) + "\n")
		manFlags(b, c.LocalNonPersistentFlags())
	}
}

// manFlags renders one paragraph a flag.
func manFlags(b *strings.Builder, flags *pflag.FlagSet) {
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden || f.Name == "help" {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		name := "\\fB" + roff("--"+f.Name) + "\\fR"
		if f.Shorthand != "" {
			name = "\\fB" + roff("-"+f.Shorthand) + "\\fR, " + name
		}
		if value != "" {
			name += " \\fI" + roff(strings.ToUpper(value)) + "\\fR"
		}
		b.WriteString(".TP\n" + name + "\n" + roff(sentence(usage)) + "\n")
	})
}

// sentence makes a flag's usage one.
func sentence(usage string) string {
	if usage == "" {
		return ""
	}
	return strings.ToUpper(usage[:1]) + strings.TrimSuffix(usage[1:], ".") + "."
}

// roff escapes text for man(7): no word becomes a command or a hyphen.
func roff(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		l = strings.TrimSpace(l)
		switch {
		case l == "":
			l = ".PP"
		case l[0] == '.' || l[0] == '\'':
			l = `\&` + l
		}
		lines[i] = l
	}
	return strings.Join(lines, "\n")
}
