package replica

import (
	"understudy/spamsync/replica/stream"
)

// Kinship is how this site's data is related to home's.
type Kinship uint8

// The kinds of kinship. The zero value allows nothing.
const (
	// Unclear: one of the two was not seen.
	Unclear Kinship = iota
	// Contained: home has everything that is here; a full copy loses nothing.
	Contained
	// Diverged: both were one up to the fork, and something was written here since.
	Diverged
	// Emptied: home had this data, and was flushed or started again empty.
	Emptied
	// Foreign: home holds the data of something else.
	Foreign
	// Strangers: both hold data, and never met.
	Strangers
	// HistoryLost: the same data by its mark, but without a common history, as after
	// a restart from an append-only file or the restoration of a backup.
	HistoryLost
)

// String names it for operators.
func (k Kinship) String() string {
	switch k {
	case Contained:
		return "home has everything"
	case Diverged:
		return "diverged"
	case Emptied:
		return "home was emptied"
	case Foreign:
		return "home holds other data"
	case Strangers:
		return "never met"
	case HistoryLost:
		return "common history is lost"
	case Unclear:
	}
	return "unclear"
}

// Relation is Kinship with the place where both part.
type Relation struct {
	Kinship
	// Fork is set where they Diverged.
	Fork stream.Point
	// Older says that home has lost commands that were copied from it, as after a
	// crash or a restoration: they are here.
	Older bool
}

// relate compares this site's Redis with home. mark is the dataset that was
// followed, empty before the first time; fork the place where this site detached,
// for a Redis that has forgotten it.
func relate(local, home Seen, mark string, fork stream.Point) Relation {
	if !local.Up() || !home.Up() {
		return Relation{}
	}
	if mark != "" && home.Dataset != mark {
		switch {
		case home.Dataset == "" && home.Keys > 0 && local.Replica() && local.LinkUp && local.Now.ID == home.Now.ID:
			// Only the mark was evicted: everything else still arrives.
			return Relation{Kinship: Contained}
		case home.Dataset == "":
			return Relation{Kinship: Emptied}
		}
		return Relation{Kinship: Foreign}
	}
	if local.Keys == 0 {
		return Relation{Kinship: Contained}
	}
	if local.Replica() && local.Now.ID == home.Now.ID {
		// Its offset may look larger: the two were not looked at in the same moment.
		return Relation{Kinship: Contained}
	}
	if at, err := stream.Fork(local.Info, home.Info); err == nil {
		if local.Now.Offset <= at.Offset {
			return Relation{Kinship: Contained}
		}
		// Where this one never stood alone, home has gone back.
		return Relation{Kinship: Diverged, Fork: at, Older: home.Before.ID == at.ID && (local.Replica() || local.Before.ID == at.ID && local.Before.Offset > at.Offset)}
	}
	if !fork.IsZero() && knows(home.Info, fork) {
		return Relation{Kinship: Diverged, Fork: fork}
	}
	switch {
	case mark != "" || home.Dataset != "" && home.Dataset == local.Dataset:
		return Relation{Kinship: HistoryLost}
	case home.Keys == 0:
		return Relation{Kinship: Emptied}
	case home.Dataset != "" && local.Dataset != "":
		return Relation{Kinship: Foreign}
	}
	return Relation{Kinship: Strangers}
}

// knows says whether p lies in a server's history.
func knows(i stream.Info, p stream.Point) bool {
	return i.Now.ID == p.ID && i.Now.Offset >= p.Offset || i.Before.ID == p.ID && i.Before.Offset >= p.Offset
}
