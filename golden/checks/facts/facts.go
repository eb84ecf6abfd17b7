// Package facts learns what checks need to know about a machine: through a communicator,
// in few round trips, with nothing installed on the machine.
package facts

// Question is something to be learned about one thing on the machine. Its words are
// those of goss's files (https://goss.readthedocs.io/en/stable/gossfile/):
//
//	kind          key               attributes
//	file          path              exists mode owner group uid gid size filetype linked-to contents md5 sha256 sha512
//	package       name              installed versions
//	service       name              enabled running runlevels
//	user          name              exists uid gid home groups shell
//	group         name              exists gid
//	command       line for sh       exit-status stdout stderr
//	process       name              running
//	port          tcp:22, udp6:53   listening ip
//	kernel-param  name              value
//	mount         directory         exists opts vfs-opts source filesystem usage
//	interface     name              exists mtu addrs
//	addr          tcp://host:port   reachable
//	dns           name, MX:name     resolvable addrs
//	http          URL               status headers body
//
// An exit status above 128 is 128 and the number of a signal, or the command's own.
type Question struct {
	Kind       string   // file, package, service, port, user, …
	Key        string   // what is looked at: a path, a name, an address, a command line
	Attributes []string // the attributes to query, such as exists and mode

	// Options are what else decides the answer, as in goss's files: timeout in
	// milliseconds, of command, mount, addr, dns and http; server of dns; local-address of addr; method,
	// allow-insecure, no-follow-redirects, request-headers (a line each), request-body,
	// username, password, ca-file, cert-file, key-file and proxy of http. An option that
	// is not known or cannot be heeded is an error of all facts.
	Options map[string]string
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

// known returns the fact that v is so.
func known(v any) Fact { return Fact{Value: v} }

// unknown returns the fact that nothing was learned.
func unknown(why string) Fact { return Fact{Err: why} }
