// Package facts collects the facts about a machine that checks need: through a
// communicator, in few round trips, and without installing anything on the machine.
package facts

// Question asks for attributes of one thing on the machine, in the terms of goss's
// files (https://goss.readthedocs.io/en/stable/gossfile/):
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
// An exit status above 128 is 128 plus the number of a signal, or the command's own.
type Question struct {
	Kind       string   // file, package, service, port, user, …
	Key        string   // such as a path, a name, an address or a command line
	Attributes []string // the attributes to query, such as exists and mode

	// Options are further parameters, as in goss's files: timeout in milliseconds for command, mount,
	// addr, dns and http; server for dns; local-address for addr; method, allow-insecure,
	// no-follow-redirects, request-headers (one per line), request-body, username, password, ca-file,
	// cert-file, key-file and proxy for http. With an option that is unknown or cannot be applied, all
	// facts are errors.
	Options map[string]string
}

// Answer holds the fact for each attribute of a question.
type Answer map[string]Fact

// Fact is the value of an attribute, or the reason why it is unknown.
type Fact struct {
	Value any    // bool, int64, string, []string or Text; nil if unknown
	Err   string // why it is unknown; "" if it is known
}

// Text is the content of a file or the output of a command. If it was truncated at a
// limit, the Err of its Fact says so.
type Text string

// known returns a fact with a value.
func known(v any) Fact { return Fact{Value: v} }

// unknown returns a fact without a value.
func unknown(why string) Fact { return Fact{Err: why} }
