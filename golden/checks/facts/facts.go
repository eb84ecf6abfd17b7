// Package facts learns what checks need to know about a machine: through a communicator,
// in few round trips, with nothing installed on the machine.
package facts

// Question is something to be learned about one thing on the machine. Its words are
// those of goss's files (https://goss.readthedocs.io/en/stable/gossfile/).
type Question struct {
	Kind       string            // file, package, service, port, user, …
	Key        string            // what is looked at: a path, a name, an address, a command line
	Attributes []string          // what is asked about it, such as exists and mode
	Options    map[string]string // what else decides the answer, such as timeout (of a command, in ms)
}

// Answer holds the fact for each attribute of a question.
type Answer map[string]Fact

// Fact is what was learned of an attribute, or why it could not be.
type Fact struct {
	Value any    // bool, int64, string, []string or Text; nil if it was not learned
	Err   string // why it was not learned; "" if it was
}

// Text is the content of a file or the output of a command; it may have been cut at a
// bound, which is then its Fact's Err.
type Text string
