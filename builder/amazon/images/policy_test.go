package images_test

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/builder"
	"bake/builder/amazon"
	"bake/builder/amazon/images"
	"bake/builder/amazon/internal/amazontest"
	"bake/builder/amazon/internal/policy"
	"bake/cloud"
	"bake/step"
)

// TestPolicies: the policy of a command allows the calls that it makes, and nothing else except
// calls that do not occur in this test.
func TestPolicies(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cloud.Options{})
	id := w.register("default", home, "web", []string{w.snapshot("default", home, aws.String("alias/golden"))})
	_, err := w.client("default", home).EnableImageDeprecation(t.Context(), &ec2.EnableImageDeprecationInput{ImageId: &id, DeprecateAt: aws.Time(time.Now().Add(48 * time.Hour))})
	w.fatal(err)
	plain := w.image(home, "plain")
	w.copied(home, plain, west, "plain")
	both := images.SharingChange{With: []string{alice}, Snapshots: true, Copies: true}
	rest := []string{"ec2:DeregisterImage", "ec2:DeleteSnapshot", "ec2:CreateTags", "kms:CreateGrant", "kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKeyWithoutPlaintext", "kms:ReEncryptFrom", "kms:ReEncryptTo"}
	referred := []string{"imagebuilder:GetContainerRecipe", "imagebuilder:GetImageRecipe", "imagebuilder:ListContainerRecipes", "imagebuilder:ListImageRecipes"} // EC2 asks
	w.parameter("/golden/web", plain, id, id)
	w.template("by-parameter", "resolve:ssm:/golden/web")
	w.parameter("/golden/moved", plain, id)
	distributor := func(a *images.Account) *images.Distributor { return a.NewDistributor(builder.Distribution{}, "run") }
	w.orphan(goneImage)
	guards := images.Guards{Now: later, Reports: true, Children: true}
	doomed := func(name string, remove func(context.Context, *images.Account, *images.Remover) error) func(context.Context, *images.Account) error {
		return func(ctx context.Context, a *images.Account) error {
			shared, partner := w.image(home, name+"-20250101"), w.image(home, name+"-20250102")
			w.fatal(permit(w.client("default", home), shared, types.LaunchPermission{UserId: aws.String("987654321098")}))
			w.fatal(permit(w.client("default", home), partner, types.LaunchPermission{UserId: aws.String("987654321098")}))
			return remove(ctx, a, w.task(t).remover(a, guards))
		}
	}
	reports := []string{"ec2:CreateImageUsageReport", "ec2:DeleteImageUsageReport", "ec2:DescribeImageUsageReportEntries", "ec2:DescribeImageUsageReports"}
	for _, c := range []struct {
		name string
		run  func(context.Context, *images.Account) error
		more []string // that this run does not make
	}{
		{"list", func(ctx context.Context, a *images.Account) error {
			all, first := a.List(ctx, images.Query{})
			_, second := a.Instances(ctx)
			a.Unused(ctx, all, images.Guards{Now: later})
			return errors.Join(first, second)
		}, referred},
		{"check", func(ctx context.Context, a *images.Account) error {
			_, err := a.CheckUse(ctx)
			return err
		}, nil},
		{"rm", doomed("rm", func(ctx context.Context, a *images.Account, r *images.Remover) error {
			found, err := a.Find(ctx, "rm-20250101")
			return errors.Join(err, r.Remove(ctx, found))
		}), append([]string{"ec2:DeleteSnapshot", "ec2:DescribeSnapshots"}, referred...)},
		{"prune", doomed("prune", func(ctx context.Context, a *images.Account, r *images.Remover) error {
			var errs []error
			for _, stages := range []images.Stages{{Deprecate: time.Hour, Delete: images.Never}, {Disable: time.Hour, Delete: images.Never}, {}} {
				plan, err := a.Plan(ctx, images.PruneOptions{Query: images.Query{Name: "prune-*"}, Keep: 1, Stages: stages, Max: share(t, "1"), Guards: guards})
				if plan.Empty() {
					t.Errorf("%+v: there is nothing to do", stages)
				}
				errs = append(errs, err, r.Prune(ctx, plan))
			}
			return errors.Join(errs...)
		}), append([]string{"ec2:DeleteSnapshot", "ec2:DeleteTags", "ec2:DescribeSnapshots"}, referred...)},
		{"enable", func(ctx context.Context, a *images.Account) error {
			id := w.image(home, "enable", images.SharedTag, "987654321098")
			_, err := w.client("default", home).DisableImage(ctx, &ec2.DisableImageInput{ImageId: &id})
			w.fatal(err)
			_, err = a.Enable(ctx, id)
			return err
		}, nil},
		{"orphans", func(ctx context.Context, a *images.Account) error {
			o := images.OrphanOptions{Now: later}
			found, err := a.Orphans(ctx, o)
			deleted, failed := a.DeleteOrphans(ctx, found, o)
			if len(deleted) != 1 {
				t.Errorf("deleted: %v", deleted)
			}
			return errors.Join(err, failed)
		}, nil},
		{"show", func(ctx context.Context, a *images.Account) error {
			_, err := a.Show(ctx, id, nil)
			return err
		}, nil},
		{"diff", func(ctx context.Context, a *images.Account) error {
			_, err := a.Diff(ctx, id, plain)
			return err
		}, []string{"ec2:DescribeSnapshotAttribute"}},
		{"copy", func(ctx context.Context, a *images.Account) error {
			_, keyed := w.copyAll(ctx, a, id, images.CopyOptions{To: []string{west}, Keys: map[string]string{"": "alias/golden"}})
			_, err := w.client("default", west).ModifyEbsDefaultKmsKeyId(ctx, &ec2.ModifyEbsDefaultKmsKeyIdInput{KmsKeyId: aws.String("alias/golden")})
			_, unkeyed := w.copyAll(ctx, a, id, images.CopyOptions{To: []string{west}, Name: "unkeyed", Encrypt: true})
			return errors.Join(keyed, err, unkeyed)
		}, rest},
		{"share", func(ctx context.Context, a *images.Account) error {
			_, first := a.Share(ctx, id, both)
			_, second := a.Share(ctx, plain, images.SharingChange{Public: true})
			return errors.Join(first, second)
		}, nil},
		{"channel", func(ctx context.Context, a *images.Account) error {
			_, err := distributor(a).Histories(ctx, "/golden/moved")
			return err
		}, nil},
		{"promote", func(ctx context.Context, a *images.Account) error {
			at, _, err := distributor(a).Named(ctx, "/golden/moved")
			s, _, _ := w.copying()
			return errors.Join(err, distributor(a).MoveChannel(ctx, s, "/golden/promoted", "test", at), s.Close(ctx, ctx))
		}, nil},
		{"rollback", func(ctx context.Context, a *images.Account) error {
			s, _, _ := w.copying()
			_, err := distributor(a).Rollback(ctx, s, "/golden/moved", "", "test")
			return errors.Join(err, s.Close(ctx, ctx))
		}, nil},
		{"approve", func(ctx context.Context, a *images.Account) error {
			_, _, err := a.Approve(ctx, plain, "bake:approved:stable", time.Now())
			return err
		}, nil},
		{"revoke", func(ctx context.Context, a *images.Account) error {
			bad := w.image(home, "bad")
			w.parameter("/golden/bad", plain, bad)
			s, _, _ := w.copying()
			_, err := distributor(a).Revoke(ctx, s, bad, "leak", true, time.Now)
			return errors.Join(err, s.Close(ctx, ctx))
		}, []string{"ec2:DeleteTags"}},
		{"unshare", func(ctx context.Context, a *images.Account) error {
			_, err := a.Unshare(ctx, id, both)
			return err
		}, reports},
	} {
		document, ok := images.PolicyFor(c.name, nil, "")
		if !ok {
			t.Fatalf("no policy for %s", c.name)
		}
		allowed := map[string]bool{}
		for _, s := range document.Statement {
			for _, action := range s.Action {
				allowed[action] = true
			}
		}
		w.watch(nil)
		a, err := images.Open(t.Context(), images.Place{All: true, Cloud: w.cloud})
		w.fatal(err)
		if err := c.run(t.Context(), a); err != nil {
			t.Errorf("%s: %v", c.name, err)
		}
		called := map[string]bool{}
		for _, seen := range w.seen() {
			action := seen.Service + ":" + seen.Action
			if action == "sts:GetCallerIdentity" {
				continue // allowed for everybody
			}
			if called[action] = true; !allowed[action] {
				t.Errorf("%s calls %s, which its policy does not allow", c.name, action)
			}
		}
		for action := range allowed {
			if !called[action] && !slices.Contains(c.more, action) {
				t.Errorf("the policy of %s allows %s for nothing", c.name, action)
			}
		}
	}
	if _, ok := images.PolicyFor("nothing", nil, ""); ok {
		t.Error("a policy for a command that there is not")
	}
	document, _ := images.PolicyFor("rm", []string{home}, "arn:aws:iam::{account}:role/bake")
	assumes := false
	for _, s := range document.Statement {
		assumes = assumes || slices.Equal(s.Action, []string{"sts:AssumeRole"}) && slices.Equal(s.Resource, []string{"arn:aws:iam::*:role/bake"})
	}
	if !assumes {
		t.Errorf("%+v", document)
	}
}

// needing is a component with the given permissions.
type needing []policy.Need

func (n needing) Permissions() []policy.Need { return n }

// enforcing refuses calls as IAM does if a policy does not allow them with their resources and
// conditions, and forwards the others to next. foreign are images without the tag of a run.
func enforcing(p amazon.Policy, foreign string, next func(int, call, http.ResponseWriter, func(http.ResponseWriter)), refused func(string)) func(int, call, http.ResponseWriter, func(http.ResponseWriter)) {
	var mu sync.Mutex
	e := amazontest.Evaluator{Policy: p, Foreign: foreign}
	listed := regexp.MustCompile(`"(?:Name|KeyId)":"([^"]*)"`)
	denied := func(c call) []string {
		action := c.Service + ":" + c.Action
		named := slices.ContainsFunc(p.Statement, func(s policy.Statement) bool { return slices.Contains(s.Action, action) })
		switch {
		case action == "sts:GetCallerIdentity":
			return nil
		case !named:
			return []string{action}
		case c.Service == "ec2":
			params := map[string]string{}
			for k, v := range c.Params {
				params[k] = v[0]
			}
			return e.Refused([]amazontest.Call{{Action: c.Action, Region: c.Region, Params: params}})
		}
		resource := cmp.Or(c.Params.Get("RoleArn"), "*")
		if m := listed.FindStringSubmatch(c.Body); m != nil {
			resource = "arn:aws:" + c.Service + ":" + c.Region + ":" + ownID + ":" + map[string]string{"ssm": "parameter", "kms": "key"}[c.Service] + "/" + strings.TrimPrefix(m[1], "/")
		}
		if !e.Allows(action, resource, c.Region) {
			return []string{action + " on " + resource}
		}
		return nil
	}
	return func(n int, c call, rw http.ResponseWriter, serve func(http.ResponseWriter)) {
		mu.Lock()
		why := denied(c)
		mu.Unlock()
		if why == nil {
			next(n, c, rw, serve)
			return
		}
		refused(strings.Join(why, ", "))
		if c.Service == "ssm" {
			http.Error(rw, `{"__type":"AccessDeniedException","message":"You are not authorized to perform this operation."}`, http.StatusBadRequest)
			return
		}
		refuse(rw)
	}
}

// TestPolicyOfPipeline: the policy of a template allows the calls that distribute an image,
// move its channels and retire older images, and nothing else except calls that revert
// failures.
func TestPolicyOfPipeline(t *testing.T) {
	t.Parallel()
	w := newWorld(t, cloud.Options{}).trusting()
	doomed := w.image(home, "web-0", "bake:image", "web")
	w.nextSecond()
	older := w.image(home, "web-1", "bake:image", "web")
	w.fatal(permit(w.client("default", home), older, types.LaunchPermission{UserId: aws.String(otherID)}))
	w.nextSecond()
	newest := w.image(home, "web-2", "bake:image", "web", "bake:verified", "verify.boot")
	d := builder.Distribution{Regions: []string{home, west}, Accounts: []string{otherID}, Role: roles, Keys: map[string]string{west: "alias/golden"}}
	r := builder.Retention{Image: "web", Keep: 1, Deprecate: day, Disable: 2 * day, Delete: 3 * day, To: d}
	document := amazon.PolicyFor([]amazon.Permitted{needing(images.DistributionNeeds([]string{home}, d, []string{"/golden/web"})), images.RetentionPermissions{}})
	foreign := strings.Join([]string{doomed, older, newest}, " ")
	w.watch(enforcing(document, foreign, answering(nobody), func(what string) { t.Errorf("%s is called, which the policy does not allow", what) }))

	out := w.distributor(d)
	s, _, _ := w.copying()
	w.fatal(out.Check(t.Context()))
	placed, err := out.Distribute(t.Context(), s, map[string]string{home: newest})
	w.fatal(err)
	_, err = out.Channel(t.Context(), "/golden/web", placed)
	w.fatal(err)
	w.fatal(out.MoveChannel(t.Context(), s, "/golden/web", "test", placed))
	built := []step.Resource{{Kind: "ec2:image", Key: "web-2", ID: newest, Where: home, With: map[string]string{"account": ownID}}}
	for n := range 3 {
		w.fatal(images.Retire(t.Context(), s, built, w.cloud, r, in(time.Duration(n+2)*10*day)))
	}
	w.fatal(s.Close(t.Context(), context.Background()))
	if w.seenBy("default", home, doomed) != nil {
		t.Error("the oldest image is still there")
	}

	allowed, called := map[string]bool{}, map[string]bool{}
	for _, statement := range document.Statement {
		for _, action := range statement.Action {
			allowed[action] = true
		}
	}
	for _, seen := range w.seen() {
		called[seen.Service+":"+seen.Action] = true
	}
	elsewhere := []string{ // by AWS itself, or where a role cannot be taken on, or where AWS leaves something to be done
		"ec2:CreateImageUsageReport", "ec2:DeleteImageUsageReport", "ec2:DescribeImageUsageReportEntries", "ec2:DescribeImageUsageReports", "ec2:DeleteSnapshot",
		"imagebuilder:GetContainerRecipe", "imagebuilder:GetImageRecipe", "imagebuilder:ListContainerRecipes", "imagebuilder:ListImageRecipes",
		"kms:CreateGrant", "kms:Decrypt", "kms:GenerateDataKeyWithoutPlaintext", "kms:ReEncryptFrom", "kms:ReEncryptTo",
		"ec2:GetEbsDefaultKmsKeyId", "ec2:GetEbsEncryptionByDefault", // by the builder
	}
	for _, action := range slices.Sorted(maps.Keys(allowed)) {
		if !called[action] && !slices.Contains(elsewhere, action) {
			t.Errorf("the policy allows %s for nothing", action)
		}
	}

	// If the policy lacks a permission, or has it for another channel, nothing moves.
	for name, parameters := range map[string][]string{"no channel": nil, "another channel": {"/golden/other"}} {
		less := amazon.PolicyFor([]amazon.Permitted{needing(images.DistributionNeeds([]string{home}, d, parameters))})
		refused := 0
		w.watch(enforcing(less, foreign, answering(), func(string) { refused++ }))
		s, _, _ := w.copying()
		err := w.distributor(d).MoveChannel(t.Context(), s, "/golden/next", "test", placed)
		w.watch(nil)
		w.fatal(s.Close(t.Context(), context.Background()))
		if err == nil || refused == 0 || w.channelAt("default", home, "/golden/next") != "" {
			t.Errorf("%s: %v", name, err)
		}
	}
}
