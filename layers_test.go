// Package bake_test has tests of the structure of the project, such as the imports between its
// packages.
package bake_test

import (
	"go/parser"
	"go/token"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
)

// rule defines the packages of the module that a package may import, other than in its tests.
type rule struct {
	of     string   // a package, or a pattern of [path.Match], or "x/..." for all below x
	may    []string // packages, or "x/..." for x and all below it
	reason string
}

// rules are in order of precedence: the first one that matches a package counts.
var rules = []rule{
	{"cmd/bake", []string{"builder/...", "builtin/...", "communicator", "component", "config/...", "docs", "engine", "fleet/...", "golden/asroot", "golden/attest", "golden/attested", "golden/changes", "golden/channels", "golden/checks", "golden/checks/facts", "golden/contents", "golden/findings", "golden/gates", "golden/manifest", "golden/notice", "golden/plan", "golden/reports", "inspect", "internal/...", "plugin/...", "run/...", "step", "ui/...", "web"}, "the program puts everything together, and is the only one to do so; the embedded cloud is behind internal/local"},
	{"builtin", []string{"builder/...", "component", "datasource/...", "engine", "postprocessor/...", "provisioner/..."}, "the one list of all components knows them, and nothing of what is done with them"},
	{"inspect/graph", []string{"internal/prose"}, "boxes and arrows are drawn whatever they stand for"},
	{"inspect", []string{"config", "config/lang", "engine", "inspect/graph"}, "a template is described without running it"},
	{"builtin/reference", []string{"builtin", "component", "config/lang", "config/schema", "docs", "golden/bakefile", "internal/prose"}, "documentation comes from the options of components, and from nothing else"},
	{"docs", []string{"config/schema", "internal/prose"}, "documents are text that anybody may show, those of options among them"},
	{"run", []string{"builder", "builder/amazon", "builder/amazon/images", "builder/amazon/kmskey", "builtin", "communicator", "component", "config", "config/lang", "engine", "golden/attest", "golden/bakefile", "golden/channels", "golden/findings", "golden/pipeline", "golden/plan", "golden/report", "golden/reports", "internal/...", "plugin/host", "run/cloudinit", "run/localcloud", "run/trace", "step", "step/onhost", "ui"}, "what a command, a test and a worker all call reads no flags and knows no command"},
	{"run/trace", []string{"builder", "internal/otlp", "internal/prose", "step"}, "traces are made of events, as displays are, and only sent where someone wants them"},
	{"fleet", []string{"builder/amazon", "config", "config/lang", "engine", "golden/bakefile", "golden/plan", "internal/...", "run", "run/localcloud", "step"}, "a fleet is made of runs, and knows no command and no engine but the one in this process"},
	{"fleet/temporal", []string{"builder/amazon", "engine", "fleet", "internal/...", "run", "run/localcloud", "step"}, "it is the one way of fleets to Temporal, and a second engine beside the one in this process"},
	{"run/releases", []string{"builder", "builder/amazon/images", "golden/channels", "golden/notice", "internal/imagetag", "run", "step"}, "channels are moved for whoever asks, by what blocks and tags say"},
	{"run/host", []string{"communicator", "communicator/ssh", "step"}, "a host that is there already is logged in to, and nothing else"},
	{"run/runtest", []string{"cloud/...", "communicator/..."}, "tests of whole runs bring up a cloud for them"},
	{"run/cloudinit", []string{"builder", "communicator", "internal/...", "step"}, "waiting for a machine to be set up is talking to it"},
	{"run/localcloud", []string{"builder", "builder/amazon", "internal/...", "step"}, "the local cloud takes the place of AWS for whatever bake does"},
	{"cloud/api/...", nil, "structs are what the actions of a service take and return, and nothing else"},
	{"cloud/...", []string{"cloud/..."}, "bake reaches the embedded cloud over HTTP with the AWS SDK only, or baking on it would prove nothing"},
	{"internal/local", []string{"cloud/..."}, "the one door from bake to the embedded cloud, which needs Linux"},
	{"internal/bench", []string{"..."}, "what is measured is the whole"},
	{"internal/torture", []string{"cloud/..."}, "disasters befall the real program on the embedded cloud; what judges it shares no code with it"},
	{"internal/script", []string{"internal/hostpath", "internal/procgroup", "internal/prose"}, "how processes are ended together differs between systems, not between those who run them; what it refuses is said as others say it"},
	{"internal/limits", []string{"internal/stack"}, "a template is read on a stack of its own"},
	{"internal/constant", []string{"internal/prose"}, "an expression that refers to nothing needs no context"},
	{"internal/wholefile", []string{"internal/hostpath"}, "a file that others replace is read as any other"},
	{"internal/login", []string{"internal/shellquote", "internal/wholefile"}, "the way to log in is shown as a line for a shell, and kept in files that others read meanwhile"},
	{"internal/httpconnect", []string{"internal/prose"}, "what a proxy says is shown as what any stranger says"},
	{"internal/webhook", []string{"internal/delay"}, "a server that does not answer is tried again as long as the context lasts"},
	{"internal/startup", []string{"internal/wholefile"}, "what a user has written is replaced at once or not at all"},
	{"internal/settings", []string{"internal/bytesize", "internal/prose"}, "the file of a user's settings stands for variables, and knows nobody who reads them"},
	{"internal/tlsfiles", []string{"internal/hostpath"}, "a file that a user has named is read as any other"},
	{"internal/otlp", []string{"internal/tlsfiles"}, "a collector is spoken to as any other server is"},
	{"internal/...", nil, "a leaf that anybody may use can use nobody"},
	{"step", []string{"internal/filelock", "internal/hostpath"}, "how anything runs and is undone knows nothing of what runs"},
	{"step/onhost", []string{"internal/procgroup", "step"}, "what a step has on this host is a resource like any other"},
	{"config/schema", []string{"internal/prose"}, "options, templates and documentation meet here: it serves every component and knows none"},
	{"config/lang", []string{"config/schema", "internal/..."}, "the language computes values and knows no components"},
	{"config/format", []string{"internal/limits", "internal/prose"}, "layout is a matter of text: it knows nothing of what templates mean"},
	{"config/upgrade", []string{"config/format", "config/schema", "internal/..."}, "a conversion of text: templates are read by config"},
	{"config", []string{"component", "config/lang", "config/schema", "datasource", "internal/..."}, "templates are read without knowing how anything runs: component bodies stay undecoded"},
	{"component", []string{"config/schema", "docs", "internal/prose"}, "the interface between components and templates depends on neither"},
	{"engine", []string{"builder", "communicator", "component", "config", "config/lang", "config/schema", "datasource", "internal/...", "postprocessor", "provisioner", "step"}, "builds are run through interfaces, and shown by others"},
	{"web", []string{"golden/report", "internal/local", "run", "run/localcloud", "step"}, "pages show runs as their logs tell them, and do what they do with calls of the API"},
	{"ui/prompt", []string{"engine"}, "questions are those of the engine, and who has a terminal is known elsewhere"},
	{"ui", []string{"builder", "internal/prose", "step"}, "a display is a function of the event stream"},

	{"golden/attest", []string{"internal/hostpath"}, "what is attested and who signs it is given"},
	{"golden/attested", []string{"builder/amazon", "builder/amazon/images", "builder/amazon/kmskey", "golden/attest", "golden/manifest", "golden/reports"}, "what is attested is compared with what a cloud and a machine say, whoever asks"},
	{"golden/channels", nil, "what is known of an image is told, and what follows done elsewhere"},
	{"golden/checks", []string{"communicator", "golden/checks/...", "golden/findings", "internal/..."}, "checks are run on a machine that somebody else has"},
	{"golden/checks/baseline", []string{"communicator", "golden/findings", "internal/..."}, "a profile is rules and their scripts; who asks for them, and what follows, is others' business"},
	{"golden/asroot", []string{"communicator", "internal/prose"}, "a script is run on a machine, whatever it is for"},
	{"golden/plan", []string{"internal/imagetag", "internal/prose"}, "what has to be built is decided from what is known, and not looked up"},
	{"golden/notice", []string{"builder", "internal/webhook", "step"}, "who asked to hear of a channel is told, whatever moved it"},
	{"golden/bakefile", []string{"builder", "config", "config/lang", "config/schema", "docs", "golden/channels", "golden/contents", "golden/gates", "golden/manifest", "golden/plan", "internal/..."}, "what bake files say is read as templates are, and done elsewhere"},
	{"golden/checks/facts", []string{"communicator", "internal/..."}, "what is learned about a machine is judged elsewhere"},
	{"golden/checks/goss", []string{"config/lang", "golden/checks/facts", "golden/findings", "internal/..."}, "files are read and answers judged; who asks a machine is somebody else"},
	{"golden/contents", []string{"golden/contents/rpmdb", "internal/shellquote"}, "what is installed is read through a shell or an fs.FS, whoever has it"},
	{"golden/contents/rpmdb", nil, "a format of files knows nothing of who reads them"},
	{"golden/gates", []string{"config", "config/lang", "config/schema", "golden/findings", "internal/hostpath", "internal/limits", "internal/prose"}, "what users write about gates is read as templates are, and judged elsewhere"},
	{"golden/leftovers", []string{"builder", "communicator", "golden/asroot", "golden/findings", "internal/cloudinit", "internal/prose", "internal/shellquote"}, "what is left on a machine is looked for and removed, whoever decides about it"},
	{"golden/changes", []string{"golden/contents", "golden/findings", "golden/manifest", "golden/reports", "internal/prose"}, "two images are compared by what is known of them, however that was learned"},
	{"golden/manifest", []string{"communicator", "golden/asroot", "internal/shellquote"}, "the files of a machine are listed and compared, whoever asks"},
	{"golden/pipeline", []string{"builder", "config", "config/lang", "engine", "golden/...", "internal/...", "step", "step/onhost"}, "it is the way of bake files to the builds of the engine"},
	{"golden/report", []string{"golden/changes", "golden/contents", "golden/findings", "internal/prose", "step"}, "what a run was is told from its log and the documents that it names, whoever asks"},
	{"golden/scan", []string{"communicator", "golden/asroot", "golden/findings", "internal/..."}, "a scanner is run on a machine that somebody else has"},
	{"golden/reports", []string{"internal/hostpath", "internal/imagetag", "internal/wholefile"}, "documents are kept and found, whatever they say"},
	{"golden/verify", []string{"builder", "golden/asroot", "golden/findings", "internal/...", "step"}, "a machine of an image is looked at, whoever launches it"},
	{"golden/findings", []string{"internal/prose"}, "every scanner speaks this model, and it knows none of them"},

	{"communicator", []string{"internal/hostpath"}, "what a machine can be asked depends on nobody who asks"},
	{"builder", []string{"communicator", "step"}, "interfaces do not know who implements or calls them"},
	{"datasource", nil, "interfaces do not know who implements or calls them"},
	{"provisioner", []string{"builder", "step"}, "interfaces do not know who implements or calls them"},
	{"postprocessor", []string{"builder", "step"}, "interfaces do not know who implements or calls them"},

	{"communicator/ssh", []string{"communicator", "communicator/none", "config/schema", "internal/...", "step"}, "the option that chooses the communicator can choose to have none"},
	{"communicator/winrm/winrmtest", []string{"internal/..."}, "a service for tests shares nothing with the client that it tests"},
	{"communicator/*", []string{"communicator", "config/schema", "internal/...", "step"}, "siblings do not import each other"},
	{"builder/amazon/internal/amazontest", []string{"..."}, "tests of Amazon's components bring up a cloud for them"},
	{"builder/amazon/internal/...", []string{"builder", "builder/amazon/internal/...", "communicator", "communicator/ssh", "communicator/winrm", "component", "config/schema", "internal/...", "step"}, "what Amazon's components share does not know them"},
	{"builder/amazon", []string{"builder", "builder/amazon/internal/...", "internal/...", "step"}, "what the program hands to Amazon's components does not know them"},
	{"builder/amazon/images", []string{"builder", "builder/amazon", "builder/amazon/internal/...", "internal/...", "step"}, "images that exist are managed by commands, and no template has a say in it"},
	{"builder/amazon/*", []string{"builder", "builder/amazon", "builder/amazon/internal/...", "communicator/...", "component", "config/schema", "datasource", "internal/...", "postprocessor", "step"}, "siblings do not import each other; a builder never sees config, engine or ui"},
	{"builder/*", []string{"builder", "communicator/...", "component", "config/schema", "internal/...", "step"}, "siblings do not import each other; a builder never sees config, engine or ui"},
	{"datasource/*", []string{"component", "config/schema", "datasource", "internal/..."}, "siblings do not import each other"},
	{"provisioner/provisionertest", []string{"builder", "communicator/...", "component", "config/schema", "internal/...", "provisioner", "step"}, "tests of provisioners need machines and ways to them"},
	{"provisioner/hcpsbom", []string{"builder", "communicator", "component", "config/schema", "golden/contents", "internal/...", "provisioner", "provisioner/internal/...", "step"}, "it is the way of provisioners to the contents of a machine"},
	{"provisioner/*", []string{"builder", "communicator", "component", "config/schema", "internal/...", "provisioner", "provisioner/internal/...", "step", "step/onhost"}, "siblings do not import each other"},
	{"provisioner/internal/*", []string{"builder", "communicator", "config/schema", "internal/...", "step"}, "what provisioners share does not know them"},
	{"plugin/wire", nil, "the protocol is the same whatever speaks it"},
	{"plugin/host", []string{"builder", "communicator", "component", "config/schema", "datasource", "internal/...", "plugin/wire", "postprocessor", "provisioner", "step"}, "plugins are components like others: whoever uses them cannot tell"},
	{"plugin/keeper", []string{"internal/procgroup", "plugin/wire"}, "it has to go on when bake has gone, and to start in no time"},
	{"plugin/plugintest", []string{"plugin/wire"}, "a plugin for tests knows the protocol, and not who starts it"},
	{"plugin/registry", []string{"internal/..."}, "getting plugins does not run them: whoever installs one says how it is asked what it is"},
	{"plugin/installed", []string{"builder", "builtin", "builtin/reference", "component", "config/lang", "config/schema", "datasource", "engine", "internal/knownplugins", "internal/prose", "plugin/host", "plugin/registry", "plugin/setup", "postprocessor", "provisioner"}, "what a template can use is found here, and run elsewhere"},
	{"plugin/setup", []string{"internal/prose", "plugin/host", "plugin/registry"}, "what is installed and what could be meet here"},
	{"postprocessor/provenance", []string{"builder", "component", "config/schema", "golden/attest", "golden/contents", "internal/...", "postprocessor", "step"}, "it is the way of post-processors to attestations"},
	{"postprocessor/*", []string{"builder", "component", "config/schema", "internal/...", "postprocessor", "step", "step/onhost"}, "siblings do not import each other"},
}

// fits reports whether a package matches the pattern of a rule.
func fits(pattern, pkg string) bool {
	if below, ok := strings.CutSuffix(pattern, "..."); ok {
		return strings.HasPrefix(pkg+"/", below)
	}
	ok, err := path.Match(pattern, pkg)
	return err == nil && ok
}

func (r rule) allows(pkg string) bool {
	for _, p := range r.may {
		if fits(p, pkg) {
			return true
		}
	}
	return false
}

// TestLayers: internal/lazyregexp is for all but the cloud, which has its own: it adds to the
// standard library.
func TestLayers(t *testing.T) {
	used := map[string]bool{}
	for _, p := range packages(t) {
		pkg, ok := p.dir()
		if !ok {
			continue
		}
		r, ok := ruleOf(pkg)
		if !ok {
			t.Errorf("no rule says what %s may import; a new room needs one", pkg)
			continue
		}
		used[r.of] = true
		for _, in := range p.Imports {
			if in, ok := strings.CutPrefix(in, "bake/"); ok && !r.allows(in) && (in != "internal/lazyregexp" || fits("cloud/...", pkg)) {
				t.Errorf("%s imports %s: %s", pkg, in, r.reason)
			}
		}
	}
	if len(used) < 10 {
		t.Errorf("only %d rules fit a package; is this the module's root?", len(used))
	}
}

// TestExamples: what an example of a package imports, a program in another module can
// import too.
func TestExamples(t *testing.T) {
	n := 0
	for _, pattern := range []string{"*/example_test.go", "*/*/example_test.go"} {
		names, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			n++
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ImportsOnly)
			if err != nil {
				t.Fatal(err)
			}
			for _, i := range f.Imports {
				if strings.Contains(i.Path.Value, "/internal/") {
					t.Errorf("%s imports %s, which no other module can", name, i.Path.Value)
				}
			}
		}
	}
	if n < 3 {
		t.Errorf("%d examples were found", n)
	}
}

func ruleOf(pkg string) (rule, bool) {
	for _, r := range rules {
		if fits(r.of, pkg) {
			return r, true
		}
	}
	return rule{}, false
}

// TestProgramWithoutTemporal: Temporal's SDK is in a separate program, since it is larger
// than everything else that most users need.
func TestProgramWithoutTemporal(t *testing.T) {
	for tags, want := range map[string]bool{"": false, "temporal": true} {
		out, err := exec.Command("go", "list", "-deps", "-tags="+tags, "./cmd/bake").Output()
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Contains(string(out), "go.temporal.io/sdk/"); got != want {
			t.Errorf("with the tags %q, cmd/bake links the SDK of Temporal: %t", tags, got)
		}
	}
}
