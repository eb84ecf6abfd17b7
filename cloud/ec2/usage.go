package ec2

import (
	"context"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/wire"
)

// usageReport is a report on how other accounts use an image.
type usageReport struct {
	Region  string
	Account string
	types.ImageUsageReport
	Entries []types.ImageUsageReportEntry
	Token   string // the request's client token; Request is its fingerprint
	Request string
}

const (
	usageKept       = 30 * 24 * time.Hour
	usageAccounts   = 200 // accounts that a report can cover
	usageImages     = 200 // images that a request can name
	usageDepth      = 20  // newest versions of a launch template that are searched
	usageInstances  = "ec2:Instance"
	usageTemplates  = "ec2:LaunchTemplate"
	usageAvailable  = "available"
	usageInProgress = "pending"
)

var usageFilters = filters{{"account-id", "AccountIds"}, {"creation-time", "CreationTime"}, {"resource-type", "ResourceTypes.ResourceType"}, {"state", "State"}}

// CreateImageUsageReport counts the resources of other accounts that use one of the
// caller's images. The report becomes available later. Recent launches are missing in it,
// as in LastLaunchedTime.
func (s *state) CreateImageUsageReport(ctx context.Context, in *ec2.CreateImageUsageReportInput) (*ec2.CreateImageUsageReportOutput, error) {
	c := wire.CallerFrom(ctx)
	tags, err := tagsFor(in.TagSpecifications, kindUsage.resource)
	if err != nil {
		return nil, err
	}
	depth, err := usageScope(in)
	if err != nil {
		return nil, err
	}
	img, err := s.ownImage(c, in.ImageId)
	if err != nil {
		return nil, err
	}
	token, request := aws.ToString(in.ClientToken), fingerprint(in)
	for _, r := range s.usage.of(c) {
		if token == "" || r.Token != token {
			continue
		}
		if r.Request != request {
			return nil, errTokenMisused()
		}
		return &ec2.CreateImageUsageReportOutput{ReportId: r.ReportId}, nil
	}
	now := s.now()
	row := &usageReport{Region: c.Region, Account: c.Account, Token: token, Request: request, ImageUsageReport: types.ImageUsageReport{
		ReportId: aws.String(newID(kindUsage.prefix)), ImageId: img.ImageId, AccountIds: in.AccountIds, CreationTime: &now,
		ExpirationTime: aws.Time(now.Add(usageKept)), Tags: tags[kindUsage.resource],
	}}
	for _, r := range in.ResourceTypes {
		kind := types.ImageUsageResourceType{ResourceType: r.ResourceType}
		for _, o := range r.ResourceTypeOptions {
			kind.ResourceTypeOptions = append(kind.ResourceTypeOptions, types.ImageUsageResourceTypeOption(o))
		}
		row.ResourceTypes = append(row.ResourceTypes, kind)
		row.Entries = append(row.Entries, s.usageOf(row, *r.ResourceType, depth)...)
	}
	return &ec2.CreateImageUsageReportOutput{ReportId: row.ReportId}, s.usage.Put(*row.ReportId, row)
}

// usageScope checks which resources a report covers, and returns how many versions of a
// launch template are searched.
func usageScope(in *ec2.CreateImageUsageReportInput) (depth int, err error) {
	depth = usageDepth
	switch {
	case len(in.ResourceTypes) == 0:
		return 0, missing("ResourceType")
	case len(in.AccountIds) > usageAccounts:
		return 0, invalidValue("%d account ids were given; at most %d are allowed.", len(in.AccountIds), usageAccounts)
	case len(aws.ToString(in.ClientToken)) > 128:
		return 0, invalidValue("The client token is too long: at most 128 characters are allowed.")
	}
	for _, account := range in.AccountIds {
		if len(account) != 12 || strings.Trim(account, "0123456789") != "" {
			return 0, invalidValue("Value ( %s ) for parameter accountId is invalid: an account id has 12 digits.", account)
		}
	}
	seen := map[string]bool{}
	for _, r := range in.ResourceTypes {
		kind := aws.ToString(r.ResourceType)
		switch {
		case kind != usageInstances && kind != usageTemplates:
			return 0, invalidValue("Invalid value '%s' for resourceType. Valid values are %s and %s.", kind, usageInstances, usageTemplates)
		case seen[kind]:
			return 0, invalidValue("Duplicate resource type '%s'.", kind)
		}
		seen[kind] = true
		for _, o := range r.ResourceTypeOptions {
			if kind != usageTemplates || aws.ToString(o.OptionName) != string(types.ImageReferenceOptionNameVersionDepth) {
				return 0, invalidValue("The option '%s' is not valid for the resource type '%s'.", aws.ToString(o.OptionName), kind)
			}
			if len(o.OptionValues) == 0 {
				return 0, missing("ResourceTypeOption.OptionValue")
			}
			if depth, err = versionDepth(o.OptionValues); err != nil {
				return 0, err
			}
		}
	}
	return depth, nil
}

// usageOf counts the resources of other accounts that use the image of a report, as far as EC2
// would know by now: see lastLaunch.
func (s *state) usageOf(r *usageReport, kind string, depth int) (entries []types.ImageUsageReportEntry) {
	counts, known := map[string]int64{}, r.CreationTime.Add(-s.delays().Usage)
	if kind == usageInstances {
		for _, in := range s.instances.Rows {
			if in.Region == r.Region && in.Ended == nil && *in.ImageId == *r.ImageId && !in.LaunchTime.After(known) {
				counts[in.OwnerId]++
			}
		}
	} else {
		for _, t := range s.templates.Rows {
			if t.Region == r.Region && slices.Contains(t.imageIDs(depth), *r.ImageId) && !t.CreateTime.After(known) {
				counts[t.Account]++
			}
		}
	}
	for account, n := range counts {
		if account != r.Account && (len(r.AccountIds) == 0 || slices.Contains(r.AccountIds, account)) {
			entries = append(entries, types.ImageUsageReportEntry{AccountId: &account, ImageId: r.ImageId, ReportId: r.ReportId,
				ReportCreationTime: r.CreationTime, ResourceType: &kind, UsageCount: &n})
		}
	}
	return entries
}

// reports returns the caller's reports on those images, or on all if images is empty. It
// deletes expired reports.
func (s *state) reports(c wire.Caller, images []string) (out []*usageReport, err error) {
	if len(images) > usageImages {
		return nil, invalidValue("%d image ids were given; at most %d are allowed.", len(images), usageImages)
	}
	now := s.opts.Clock.Now()
	for _, r := range s.usage.of(c) {
		if !now.Before(*r.ExpirationTime) {
			if err := s.usage.Drop(*r.ReportId); err != nil {
				return nil, err
			}
			continue
		}
		if len(images) > 0 && !slices.Contains(images, *r.ImageId) {
			continue
		}
		shown := *r
		shown.State = aws.String(usageInProgress)
		if !now.Before(r.CreationTime.Add(s.delays().Image)) {
			shown.State = aws.String(usageAvailable)
		}
		out = append(out, &shown)
	}
	return out, nil
}

// DescribeImageUsageReports shows the caller's reports.
func (s *state) DescribeImageUsageReports(ctx context.Context, in *ec2.DescribeImageUsageReportsInput) (*ec2.DescribeImageUsageReportsOutput, error) {
	all, err := s.reports(wire.CallerFrom(ctx), in.ImageIds)
	if err != nil {
		return nil, err
	}
	var rows []types.ImageUsageReport
	for _, r := range all {
		rows = append(rows, r.ImageUsageReport)
	}
	rows, next, err := list(s, kindUsage, query{in.ReportIds, in.Filters, in.MaxResults, in.NextToken}, rows)
	return &ec2.DescribeImageUsageReportsOutput{ImageUsageReports: rows, NextToken: next}, err
}

// DescribeImageUsageReportEntries shows the entries of the caller's available reports.
func (s *state) DescribeImageUsageReportEntries(ctx context.Context, in *ec2.DescribeImageUsageReportEntriesInput) (*ec2.DescribeImageUsageReportEntriesOutput, error) {
	if err := kindUsage.checkPage(query{max: in.MaxResults}); err != nil {
		return nil, err
	}
	all, err := s.reports(wire.CallerFrom(ctx), in.ImageIds)
	if err != nil {
		return nil, err
	}
	if all, err = pick(s, kindUsage, in.ReportIds, all); err != nil {
		return nil, err
	}
	var rows []types.ImageUsageReportEntry
	for _, r := range all {
		if *r.State == usageAvailable {
			rows = append(rows, r.Entries...)
		}
	}
	rows, err = apply(filters{{"account-id", "AccountId"}, {"creation-time", "ReportCreationTime"}, {"resource-type", "ResourceType"}}, in.Filters, rows)
	if err != nil {
		return nil, err
	}
	key := func(e types.ImageUsageReportEntry) string {
		return *e.ReportId + " " + *e.AccountId + " " + *e.ResourceType
	}
	sort.Slice(rows, func(i, j int) bool { return key(rows[i]) < key(rows[j]) })
	rows, next, err := page(rows, key, in.MaxResults, in.NextToken)
	return &ec2.DescribeImageUsageReportEntriesOutput{ImageUsageReportEntries: rows, NextToken: next}, err
}

// DeleteImageUsageReport deletes a report.
func (s *state) DeleteImageUsageReport(ctx context.Context, in *ec2.DeleteImageUsageReportInput) (*ec2.DeleteImageUsageReportOutput, error) {
	r, err := s.usage.find(wire.CallerFrom(ctx), in.ReportId)
	if err != nil {
		return nil, err
	}
	return &ec2.DeleteImageUsageReportOutput{Return: aws.Bool(true)}, s.usage.Drop(*r.ReportId)
}
