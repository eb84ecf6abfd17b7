package bake_test

import (
	"fmt"
	"go/ast"
	"go/token"
	"os"
	"os/exec"
	"path"
	"slices"
	"strings"
	"testing"
)

// TestLittleIsDoneBeforeMain: package initialization costs every command time, even
// "bake version". Regular expressions are compiled when first needed, and no package
// that builds large tables is linked.
func TestLittleIsDoneBeforeMain(t *testing.T) {
	linked := map[string]bool{"bake/cmd/bake": true} // and what is linked with it, in order of initialization
	for _, p := range slices.Backward(packages(t)) {
		if linked[p.ImportPath] {
			for _, in := range p.Imports {
				linked[in] = true
			}
		}
		if linked[p.ImportPath] && strings.Contains(p.ImportPath, "/aws-sdk-go-v2/service/") && strings.HasSuffix(p.ImportPath, "/schemas") {
			t.Errorf("%s makes a table of all shapes of its service before main: stay with the release before it came", p.ImportPath)
		}
	}
	files := 0
	for _, s := range sources(t) {
		if s.syntax == nil || !linked["bake/"+path.Dir(s.name)] {
			continue
		}
		files++
		for _, at := range compiledAtOnce(s.syntax) {
			t.Errorf("%s: an expression is compiled before main: use lazyregexp.New", positions.Position(at))
		}
	}
	if files < 100 {
		t.Errorf("only %d files were looked at; is this the module's root?", files)
	}
}

// testInitialization limits the memory that packages allocate before main, which measures their
// work independently of the machine. A third of it is for the expressions that each client of the
// AWS SDK compiles.
func testInitialization(t *testing.T, program string) {
	const limit = 1_050_000 // bytes: 0.5 MB are six services of the SDK
	cmd := exec.Command(program, "version")
	cmd.Env = append(os.Environ(), "GODEBUG=inittrace=1")
	var trace strings.Builder
	cmd.Stderr = &trace
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, &trace)
	}
	var all []initialized
	sum := 0
	for line := range strings.Lines(trace.String()) {
		var i initialized
		var at, clock string
		if _, err := fmt.Sscanf(line, "init %s @%s ms, %s ms clock, %d bytes, %d allocs", &i.pkg, &at, &clock, &i.bytes, &i.allocs); err == nil {
			all, sum = append(all, i), sum+i.bytes
		}
	}
	if len(all) < 100 {
		t.Fatalf("only %d packages in the trace:\n%s", len(all), &trace)
	}
	testInitialized(t, all)
	t.Logf("%d packages allocate %d bytes before main", len(all), sum)
	if sum > limit {
		slices.SortFunc(all, func(a, b initialized) int { return b.bytes - a.bytes })
		t.Errorf("%d bytes are allocated before main, more than %d; by these packages most:\n%v", sum, limit, all[:30])
	}
}

// testInitialized: each of bake's packages that is initialized before main takes a page of the
// program's file into memory, and with it the fifteen around it, whatever the command. So tables
// are slices or functions instead of maps, which the compiler cannot lay out, and what has to be
// computed is computed when it is first used.
func testInitialized(t *testing.T, all []initialized) {
	may := map[string]bool{
		// Nearly every command needs these.
		"bake/config": true, "bake/config/lang": true, "bake/config/schema": true, "bake/engine": true, "bake/internal/gotemplate": true,
		"bake/internal/stack": true,
		// These are beside what is initialized or needed anyway.
		"bake/builder/amazon": true, "bake/builder/amazon/internal/device": true, "bake/builder/amazon/internal/policy": true,
		"bake/cloud/image/debian": true, "bake/cloud/machine/sandbox": true, "bake/cloud/network": true,
		"bake/docs": true, "bake/golden/findings": true, "bake/internal/sprig": true, "bake/provisioner/internal/remote": true, "bake/provisioner/powershell": true,
	}
	grown := false
	for _, i := range all {
		grown = grown || i.pkg == "bake/internal/stack"
		if strings.HasPrefix(i.pkg, "bake/") && !may[i.pkg] {
			t.Errorf("%s is initialized before main: compute its variables when they are first used (lazyregexp for expressions)", i.pkg)
		}
		if strings.HasPrefix(i.pkg, "github.com/") && !grown {
			t.Fatalf("%s is initialized before bake/internal/stack, which must import nothing", i.pkg)
		}
	}
}

// initialized is what a package has allocated before main.
type initialized struct {
	pkg           string
	bytes, allocs int
}

func (i initialized) String() string {
	return fmt.Sprintf("%d bytes in %d: %s\n", i.bytes, i.allocs, i.pkg)
}

// compiledAtOnce returns the places where package variables are set to a compiled expression.
func compiledAtOnce(f *ast.File) (at []token.Pos) {
	for _, d := range f.Decls {
		vars, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		ast.Inspect(vars, func(n ast.Node) bool {
			if s, ok := n.(*ast.SelectorExpr); ok && (s.Sel.Name == "MustCompile" || s.Sel.Name == "MustCompilePOSIX") {
				at = append(at, s.Pos())
			}
			_, later := n.(*ast.FuncLit)
			return !later
		})
	}
	return at
}
