package lang

import (
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/netip"

	"github.com/zclconf/go-cty/cty"
	"github.com/zclconf/go-cty/cty/function"
	"github.com/zclconf/go-cty/cty/gocty"
)

// cidrHost returns the address with a number within a prefix; negative numbers
// count from its end.
var cidrHost = function.New(&function.Spec{
	Params: []function.Parameter{{Name: "prefix", Type: cty.String}, {Name: "hostnum", Type: cty.Number}},
	Type:   function.StaticReturnType(cty.String),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		p, err := prefix(args[0])
		if err != nil {
			return cty.NilVal, err
		}
		num := new(big.Int)
		if err := gocty.FromCtyValue(args[1], num); err != nil {
			return cty.NilVal, function.NewArgError(1, err)
		}
		size := new(big.Int).Lsh(big.NewInt(1), uint(p.Addr().BitLen()-p.Bits()))
		if num.Sign() < 0 {
			num.Add(num, size)
		}
		if num.Sign() < 0 || num.Cmp(size) >= 0 {
			return cty.NilVal, function.NewArgErrorf(1, "prefix %s has no host with this number", p)
		}
		return cty.StringVal(offset(p.Addr(), num).String()), nil
	},
})

var cidrNetmask = text1("prefix", func(s string) (string, error) {
	p, err := netip.ParsePrefix(s)
	if err != nil || !p.Addr().Is4() {
		return "", errors.New("must be an IPv4 prefix such as 10.0.0.0/8")
	}
	return net.IP(net.CIDRMask(p.Bits(), 32)).String(), nil
})

// cidrSubnet returns the subnet with number netnum among those whose prefix is longer by
// newbits.
var cidrSubnet = function.New(&function.Spec{
	Params: []function.Parameter{
		{Name: "prefix", Type: cty.String}, {Name: "newbits", Type: cty.Number}, {Name: "netnum", Type: cty.Number},
	},
	Type: function.StaticReturnType(cty.String),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		p, err := prefix(args[0])
		if err != nil {
			return cty.NilVal, err
		}
		bits, err := longer(p, args[1])
		if err != nil {
			return cty.NilVal, function.NewArgError(1, err)
		}
		num := new(big.Int)
		if err := gocty.FromCtyValue(args[2], num); err != nil {
			return cty.NilVal, function.NewArgError(2, err)
		}
		count := new(big.Int).Lsh(big.NewInt(1), uint(bits-p.Bits()))
		if num.Sign() < 0 || num.Cmp(count) >= 0 {
			return cty.NilVal, function.NewArgErrorf(2, "prefix %s has only %s subnets of /%d", p, count, bits)
		}
		num.Lsh(num, uint(p.Addr().BitLen()-bits))
		return cty.StringVal(netip.PrefixFrom(offset(p.Addr(), num), bits).String()), nil
	},
})

// cidrSubnets places subnets of the given lengths one after the other.
var cidrSubnets = function.New(&function.Spec{
	Params:   []function.Parameter{{Name: "prefix", Type: cty.String}},
	VarParam: &function.Parameter{Name: "newbits", Type: cty.Number},
	Type:     function.StaticReturnType(cty.List(cty.String)),
	Impl: func(args []cty.Value, _ cty.Type) (cty.Value, error) {
		p, err := prefix(args[0])
		if err != nil {
			return cty.NilVal, err
		}
		var subnets []cty.Value
		next := new(big.Int)
		total := new(big.Int).Lsh(big.NewInt(1), uint(p.Addr().BitLen()-p.Bits()))
		for i, arg := range args[1:] {
			bits, err := longer(p, arg)
			if err != nil {
				return cty.NilVal, function.NewArgError(i+1, err)
			}
			size := new(big.Int).Lsh(big.NewInt(1), uint(p.Addr().BitLen()-bits))
			if rest := new(big.Int).Mod(next, size); rest.Sign() > 0 { // a subnet starts at a multiple of its size
				next.Add(next, size).Sub(next, rest)
			}
			end := new(big.Int).Add(next, size)
			if end.Cmp(total) > 0 {
				return cty.NilVal, function.NewArgErrorf(i+1, "prefix %s has no room for another /%d", p, bits)
			}
			subnets = append(subnets, cty.StringVal(netip.PrefixFrom(offset(p.Addr(), next), bits).String()))
			next = end
		}
		if len(subnets) == 0 {
			return cty.ListValEmpty(cty.String), nil
		}
		return cty.ListVal(subnets), nil
	},
})

func prefix(v cty.Value) (netip.Prefix, error) {
	p, err := netip.ParsePrefix(v.AsString())
	if err != nil {
		return p, function.NewArgErrorf(0, "%q is not a prefix such as 10.0.0.0/8", v.AsString())
	}
	return p.Masked(), nil
}

// longer returns the length of a prefix that is v bits longer than p.
func longer(p netip.Prefix, v cty.Value) (int, error) {
	var bits int
	if err := gocty.FromCtyValue(v, &bits); err != nil {
		return 0, err
	}
	if limit := p.Addr().BitLen() - p.Bits(); bits < 0 || bits > limit {
		return 0, fmt.Errorf("prefix %s can be extended by at most %d bits", p, limit)
	}
	return p.Bits() + bits, nil
}

// offset returns the address n after a.
func offset(a netip.Addr, n *big.Int) netip.Addr {
	sum := new(big.Int).SetBytes(a.AsSlice())
	sum.Add(sum, n)
	out, _ := netip.AddrFromSlice(sum.FillBytes(make([]byte, a.BitLen()/8)))
	return out
}
