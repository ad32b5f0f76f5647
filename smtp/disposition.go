package smtp

// String returns "exists", "unknown" or "unsure".
func (d Disposition) String() string {
	switch d {
	case Exists:
		return "exists"
	case Unknown:
		return "unknown"
	case Unsure:
	}
	return "unsure"
}
