package cloud_test

import (
	"fmt"
	"testing"

	"github.com/aws/aws-sdk-go-v2/service/sts"

	"bake/cloud"
	"bake/cloud/cloudtest"
)

// TestMoreAccounts checks that there are two accounts or as many as requested, that they
// and their keys persist, and that each can make requests.
func TestMoreAccounts(t *testing.T) {
	dir := t.TempDir()
	var before []cloud.Credentials
	for i, step := range []struct{ ask, have int }{{0, 2}, {4, 4}, {3, 4}, {0, 4}} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			s := cloudtest.Start(t, cloud.Options{Dir: dir, Accounts: step.ask})
			all, seen := s.Credentials(), map[string]bool{}
			for _, c := range all {
				out, err := sts.NewFromConfig(s.Config(c.Profile, "us-east-1")).GetCallerIdentity(t.Context(), nil)
				if err != nil || *out.Account != c.Account || seen[c.Account] {
					t.Errorf("%s: %v, %v, want account %s", c.Profile, out, err, c.Account)
				}
				seen[c.Account] = true
			}
			if len(all) != step.have {
				t.Errorf("%d accounts, want %d", len(all), step.have)
			}
			for i, c := range before {
				if all[i] != c {
					t.Errorf("the account %s has changed to %+v", c.Account, all[i])
				}
			}
			before = all
		})
	}
	if _, err := cloudtest.Open(t.Context(), t.TempDir, cloud.Options{Accounts: cloud.MaxAccounts + 1}); err == nil {
		t.Error("too many accounts")
	}
}
