package communicator

// Head keeps the first Max bytes that are written to it and drops the rest, because the
// output of a machine has no limit.
type Head struct {
	Max int

	kept []byte
	cut  bool
}

// Write implements [io.Writer]. There is no ReadFrom, which [io.Copy] would prefer.
func (h *Head) Write(b []byte) (int, error) {
	n := min(len(b), h.Max-len(h.kept))
	h.kept = append(h.kept, b[:n]...)
	h.cut = h.cut || n < len(b)
	return len(b), nil
}

// String returns what was kept.
func (h *Head) String() string { return string(h.kept) }

// Cut reports whether something was dropped.
func (h *Head) Cut() bool { return h.cut }
