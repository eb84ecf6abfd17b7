package access

import "strings"

// global holds the endpoints of a service that has one host for all regions of a partition,
// as host name suffixes after the name of the service, and the region that its requests are
// signed for.
type global struct {
	domain                  string // of the hosts of regional services
	usual, fips, dual, both string
	home                    string
}

// govCloud has the domain of the first of globals.
var govCloud = global{"", ".us-gov.amazonaws.com", ".us-gov.amazonaws.com", ".us-gov.api.aws", ".us-gov.api.aws", "us-gov-west-1"}

var globals = []global{
	{".amazonaws.com", ".amazonaws.com", "-fips.amazonaws.com", ".global.api.aws", "-fips.global.api.aws", "us-east-1"},
	{".amazonaws.com.cn", ".cn-north-1.amazonaws.com.cn", "-fips.amazonaws.com.cn", ".global.api.amazonwebservices.com.cn", "-fips.api.amazonwebservices.com.cn", "cn-north-1"},
	{".c2s.ic.gov", ".us-iso-east-1.c2s.ic.gov", "-fips.us-iso-east-1.c2s.ic.gov", ".api.aws.ic.gov", "-fips.api.aws.ic.gov", "us-iso-east-1"},
	{".sc2s.sgov.gov", ".us-isob-east-1.sc2s.sgov.gov", "-fips.us-isob-east-1.sc2s.sgov.gov", ".api.aws.scloud", "-fips.api.aws.scloud", "us-isob-east-1"},
	{".cloud.adc-e.uk", ".eu-isoe-west-1.cloud.adc-e.uk", "-fips.cloud.adc-e.uk", ".api.cloud-aws.adc-e.uk", "-fips.api.cloud-aws.adc-e.uk", "eu-isoe-west-1"},
	{".csp.hci.ic.gov", ".us-isof-south-1.csp.hci.ic.gov", "-fips.csp.hci.ic.gov", ".api.aws.hci.ic.gov", "-fips.api.aws.hci.ic.gov", "us-isof-south-1"},
	{".amazonaws.eu", ".eusc-de-east-1.amazonaws.eu", "-fips.amazonaws.eu", ".global.api.amazonwebservices.eu", "-fips.api.amazonwebservices.eu", "eusc-de-east-1"},
}

// globalHost returns the host name suffix of a global service for a region, given
// regional, the usual host of another service, and the region that requests are signed
// for.
func globalHost(region, regional string, dual, fips bool) (ending, home string) {
	g := globals[0]
	for _, other := range globals {
		if strings.HasSuffix(regional, other.domain) {
			g = other
		}
	}
	if strings.HasPrefix(region, "us-gov-") {
		g = govCloud
	}
	switch {
	case dual && fips:
		return g.both, g.home
	case dual:
		return g.dual, g.home
	case fips:
		return g.fips, g.home
	}
	return g.usual, g.home
}
