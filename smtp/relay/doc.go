// Package relay carries queued messages to their next hops and reads the
// answers exactly.
//
// A Relay runs one loop per route. Route "" leads where Deps.Hops points, by
// preference; any other route is a next hop given by an operator. The loop
// takes messages from the queue, as many as the hop may be given, and hands
// them to lanes: connections on which several messages are on their way at
// once. What the hop says comes back per recipient.
//
// How much a hop may be given is decided by a machine, one per route and hop,
// which is pure:
//
//	           nothing can be connected
//	 +----------------------------------------> Down
//	 |                                         |  ^  tried every probe_interval,
//	 |      a probe is greeted: expedite,      |  |  no message is touched
//	 |      slow start                         |  |
//	Up <---------------------------------------+  | cannot be connected
//	 |  ^                                         |
//	 |  | a message is accepted: expedite,        |
//	 |  | slow start                              |
//	 v  |                                         |
//	Paused ---------------------------------------+
//	 pause_after messages in a row refused or put off for reasons of the
//	 hop's own: alarm, then one message at growing intervals
//
// While it is up, the number of messages on their way begins at one, doubles
// each round, and after the first trouble grows slowly and is halved by each
// further one.
//
// Invariants:
//
//   - A 5xx counts only from a hop that has accepted something since it came
//     up. One that may be about the hop and not the message (at MAIL, 5.7.x at
//     RCPT ...) counts only the second time, with an acceptance in between.
//     Until then it is Deferred. A hop that knows none of the recipients of many
//     messages in a row has to prove itself again.
//   - While a hop is down or paused, no message is tried, and none gets a
//     back-off; its return makes everything due at once.
//   - Every delivery taken is ended with Done, once. Unknown is Deferred.
//   - A policy that wants TLS never falls back to plain text.
//
// Example:
//
//	hop, err := relay.ParseHop("smtp://mx1.example.net:25?tls=verified")
//	...
//	r, err := relay.New(relay.DefaultConfig(), relay.Deps{
//		Queue: spool, Hostname: "mx2.example.net", Logger: log, Alarms: alarms,
//		Hops: func() ([]relay.Hop, <-chan struct{}) { return []relay.Hop{hop}, nil },
//	})
//	...
//	err = r.Run(ctx)
package relay
