// Package ask asks what is outside of this process for text: a database, a
// program, a file with a secret. Who exists and whose mailbox is kept equal both
// come from there.
//
// Everything ends with its context, a program with all its children, and an
// answer counts only when it is whole: a program that fails after half a list
// has given no list.
//
//	err := ask.Command(ctx, []string{"doveadm", "user", "*"}, func(r io.Reader) error { … })
//	err = ask.Query{Driver: ask.Postgres, DSNFile: file, Text: "SELECT address FROM users"}.Rows(ctx, func(n int, row []string) error { … })
package ask
