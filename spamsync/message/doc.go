// Package message reads a mail message the way a filter needs it: header fields,
// the parts of its MIME tree, the text a person would see, the URLs in it, and
// what is broken.
//
// Invariants:
//
//   - Any bytes give a Message; only a failing reader is an error.
//   - Memory and time are bounded by Limits and the number of bytes read, whatever
//     the shape: nothing recurses, nothing is unpacked.
//   - The same bytes give the same Message.
//
// For example:
//
//	m, err := message.Parse(body, message.Limits{})
//	fmt.Fprintln(w, m.Get("Subject"), len(m.Parts), m.Text)
package message
