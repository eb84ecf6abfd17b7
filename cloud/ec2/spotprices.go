package ec2

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"hash/fnv"
	"reflect"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/ec2"
	"github.com/aws/aws-sdk-go-v2/service/ec2/types"

	"bake/cloud/wire"
)

// How far back EC2 shows spot prices, and how long a price of the embedded cloud stays the
// same.
const (
	priceHistory = 90 * 24 * time.Hour
	pricePeriod  = 7 * 24 * time.Hour
)

// maxPrices is the number of prices on a page if the request sets no limit.
const maxPrices = 1000

// usualPrice returns the typical spot price of a type, in dollars an hour: about EC2's
// price in us-east-1 for types of its size.
func usualPrice(t types.InstanceTypeInfo) float64 {
	gib := float64(*t.MemoryInfo.SizeInMiB) / 1024
	if aws.ToBool(t.BurstablePerformanceSupported) {
		return 0.0031 * gib
	}
	return 0.012*float64(*t.VCpuInfo.DefaultVCpus) + 0.0015*gib
}

// pricesOf returns the prices of a type in a zone, newest first: those that began between
// from and to, and the one before. They are derived from the names and the time, so that
// they are always the same.
func pricesOf(t types.InstanceTypeInfo, zone, zoneID string, from, to time.Time) (out []types.SpotPrice) {
	sum := func(period int64) int64 {
		h := fnv.New64a()
		_, _ = h.Write(binary.BigEndian.AppendUint64([]byte(string(t.InstanceType)+"/"+zoneID+"/"), uint64(period))) // never fails
		return int64(h.Sum64() >> 1)
	}
	every := int64(pricePeriod / time.Second)
	offset := sum(-1) % every
	since := to.Unix() - offset
	period := since / every
	if since < period*every { // before 1970: division rounds towards zero
		period--
	}
	for ; ; period-- {
		begins := time.Unix(period*every+offset, 0).UTC()
		percent := 90 + float64(sum(period)%2001)/100 // up to 10 % less or more
		out = append(out, types.SpotPrice{
			AvailabilityZone: &zone, AvailabilityZoneId: &zoneID, InstanceType: t.InstanceType, ProductDescription: types.RIProductDescriptionLinuxUnix,
			SpotPrice: aws.String(fmt.Sprintf("%.6f", usualPrice(t)*percent/100)), Timestamp: &begins,
		})
		if !begins.After(from) {
			return out
		}
	}
}

var priceFilters = filters{
	{"availability-zone", "AvailabilityZone"}, {"availability-zone-id", "AvailabilityZoneId"}, {"instance-type", "InstanceType"},
	{"product-description", "ProductDescription"}, {"spot-price", "SpotPrice"}, {"timestamp", "Timestamp"},
}

// DescribeSpotPriceHistory shows spot prices in the zones of the region, newest first.
// Nothing is charged, and the prices never prevent a launch.
func (s *Service) DescribeSpotPriceHistory(ctx context.Context, in *ec2.DescribeSpotPriceHistoryInput) (*ec2.DescribeSpotPriceHistoryOutput, error) {
	r, _ := findRegion(wire.CallerFrom(ctx).Region)
	zone := -1
	if name, id := aws.ToString(in.AvailabilityZone), aws.ToString(in.AvailabilityZoneId); name+id != "" {
		if zone = r.zone(name, id); zone < 0 {
			return nil, invalidValue("Invalid availability zone: [%s]", cmp.Or(name, id))
		}
	}
	for _, t := range in.InstanceTypes {
		if err := checkType(t); err != nil {
			return nil, err
		}
	}
	now := s.opts.Clock.Now()
	from, to := now.Add(-priceHistory), now
	if at := in.StartTime; at != nil && at.After(from) {
		from = *at
	}
	if at := in.EndTime; at != nil && at.Before(now) {
		to = *at
	}
	if in.StartTime != nil && in.EndTime != nil && in.StartTime.After(*in.EndTime) {
		return nil, invalidValue("The StartTime %s is after the EndTime %s.", in.StartTime.UTC().Format(timeForm), in.EndTime.UTC().Format(timeForm))
	}
	if from.After(to) { // only the price in effect at the end
		from = to
	}
	linux := len(in.ProductDescriptions) == 0 || slices.ContainsFunc(in.ProductDescriptions, func(p string) bool {
		return strings.TrimSuffix(p, " (Amazon VPC)") == string(types.RIProductDescriptionLinuxUnix)
	})
	rows := []types.SpotPrice{}
	for _, t := range describedTypes() {
		if !linux || len(in.InstanceTypes) > 0 && !slices.Contains(in.InstanceTypes, t.InstanceType) || !slices.Contains(t.SupportedUsageClasses, types.UsageClassTypeSpot) {
			continue
		}
		for i := range r.zones {
			if zone < 0 || zone == i {
				rows = append(rows, pricesOf(t, r.zoneName(i), r.zoneID(i), from, to)...)
			}
		}
	}
	rows, err := apply(priceFilters, in.Filters, rows)
	if err != nil {
		return nil, err
	}
	order := byKey{swap: reflect.Swapper(rows)}
	for _, p := range rows {
		order.keys = append(order.keys, newestFirst(p.Timestamp.Format(timeForm))+string(p.InstanceType)+*p.AvailabilityZone)
	}
	sort.Sort(order)
	cut, next, err := pageOf(reflect.ValueOf(rows), func(i int) string { return order.keys[i] }, cmp.Or(in.MaxResults, aws.Int32(maxPrices)), in.NextToken)
	if err != nil {
		return nil, err
	}
	return &ec2.DescribeSpotPriceHistoryOutput{SpotPriceHistory: cut.Interface().([]types.SpotPrice), NextToken: next}, nil
}
