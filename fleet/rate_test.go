package fleet_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"bake/fleet"
	"bake/internal/turns"
)

// Together, many cells make no more calls to a service in a region than api_rate allows, as
// counted by the cloud.
func TestManyCells(t *testing.T) { manyCells(t, 6, 25) }

func TestTwoHundredCells(t *testing.T) {
	turns.Skip(t, 10)
	manyCells(t, 50, 60)
}

func manyCells(t *testing.T, images int, rate float64) {
	var sources, named, blocks strings.Builder
	for i := range images {
		fmt.Fprintf(&sources, "source \"amazon-ebs\" \"i%d\" {\n  region = \"us-east-1\"\n  source_ami_filter {\n    owners = [\"136693071363\"]\n    filters = { name = \"debian-12-*\" }\n    most_recent = true\n  }\n  instance_type = \"t3.micro\"\n  ssh_username = \"admin\"\n  ami_name = \"many-%d\"\n}\n", i, i)
		fmt.Fprintf(&named, "\"amazon-ebs.i%d\", ", i)
		fmt.Fprintf(&blocks, "image \"i%d\" {\n  sources = [\"amazon-ebs.i%d\"]\n}\n", i, i)
	}
	var list []string
	for i := range images {
		list = append(list, fmt.Sprintf("image.i%d", i))
	}
	w := newWorld(t, sources.String()+"build {\n  sources = ["+named.String()+"]\n}\n", blocks.String()+`
fleet "many" {
  images = [`+strings.Join(list, ", ")+`]
  matrix {
    account = ["123456789012"]
    region  = ["eu-west-1", "us-west-2", "eu-central-1", "us-east-1"]
  }
  limits {
    parallel = 24
    api_rate = { ec2 = `+fmt.Sprint(rate)+` }
  }
}
`)
	address, calls := w.Watch()
	t.Setenv("AWS_ENDPOINT_URL", address)
	ended, began := 0, time.Now()
	s, text := w.run(fleet.RunOptions{OnStatus: func(s fleet.Status) {
		n := 0
		for _, c := range s.Cells {
			if c.Outcome != nil {
				n++
			}
		}
		if n/50 == ended/50 {
			return
		}
		ended = n
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		t.Logf("%d cells in %s: a heap of %d MB, the cloud's included, and %d goroutines", n, time.Since(began).Round(time.Second), m.HeapAlloc>>20, runtime.NumGoroutine())
	}})
	if s.State != fleet.StateDone || strings.Count(text, " built") != images*4 {
		w.dump()
		t.Fatalf("%s:\n%s", s.State, text)
	}
	if n := len(calls.Places()); n != 4 {
		t.Errorf("calls went to %d regions", n)
	}
	calls.Held(t, rate)
}

// A caller that no longer waits does not use up a turn.
func TestRatesGiveBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		wait := fleet.NewRates(map[string]float64{"ec2": 1}).Of("1")
		ctx, cancel := context.WithCancel(t.Context())
		began := time.Now()
		if err := wait(ctx, "ec2", "r"); err != nil {
			t.Fatal(err)
		}
		var gone sync.WaitGroup
		for range 50 {
			gone.Go(func() {
				if err := wait(ctx, "ec2", "r"); !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		cancel()
		gone.Wait()
		if err := wait(t.Context(), "ec2", "r"); err != nil || time.Since(began) != time.Second {
			t.Errorf("the next call is made after %s, %v", time.Since(began), err)
		}
	})
}
