"""A VPC with a public and a private subnet in each zone: nodes are private, one NAT gateway lets them out, S3 is reached directly."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

import pulumi
import pulumi_aws as aws

from deployctl.core.platform import Platform


@dataclass(frozen=True, slots=True, kw_only=True)
class Vpc:
    """What the cluster needs of its network."""

    id: pulumi.Output[str]
    private: list[pulumi.Output[str]]
    public: list[pulumi.Output[str]]


def subnets(cidr: str, zones: int) -> tuple[list[str], list[str]]:
    """(private, public) ranges: private ones take the lower half, since every pod gets an address there.

    Raises:
        RunError: the range is too small.
    """
    whole = ipaddress.ip_network(cidr, strict=False)
    bits = max(1, (zones - 1).bit_length())
    if whole.prefixlen + bits + 1 > 26:
        raise pulumi.RunError(f"network.cidr {cidr} is too small for {zones} zones: each private subnet needs at least 64 addresses")
    lower, upper = whole.subnets(1)
    return [str(n) for n in list(lower.subnets(bits))[:zones]], [str(n) for n in list(upper.subnets(bits))[:zones]]


def vpc(platform: Platform, options: pulumi.ResourceOptions) -> Vpc:
    """Make the network."""
    whole = aws.ec2.Vpc(
        "vpc", cidr_block=platform.network.cidr, enable_dns_hostnames=True, enable_dns_support=True, tags={"Name": platform.name}, opts=options
    )
    gateway = aws.ec2.InternetGateway("internet", vpc_id=whole.id, opts=options)
    private_ranges, public_ranges = subnets(platform.network.cidr, len(platform.network.zones))
    public = [
        _subnet(f"public-{zone}", platform, whole, cidr, zone, {"kubernetes.io/role/elb": "1"}, options)
        for zone, cidr in zip(platform.network.zones, public_ranges, strict=True)
    ]
    private = [
        _subnet(f"private-{zone}", platform, whole, cidr, zone, {"kubernetes.io/role/internal-elb": "1"}, options)
        for zone, cidr in zip(platform.network.zones, private_ranges, strict=True)
    ]
    address = aws.ec2.Eip("nat", domain="vpc", opts=options)
    nat = aws.ec2.NatGateway("nat", allocation_id=address.allocation_id, subnet_id=public[0].id, opts=options)
    out = aws.ec2.RouteTable(
        "public", vpc_id=whole.id, routes=[aws.ec2.RouteTableRouteArgs(cidr_block="0.0.0.0/0", gateway_id=gateway.id)], opts=options
    )
    inside = aws.ec2.RouteTable(
        "private", vpc_id=whole.id, routes=[aws.ec2.RouteTableRouteArgs(cidr_block="0.0.0.0/0", nat_gateway_id=nat.id)], opts=options
    )
    for kind, table, members in (("public", out, public), ("private", inside, private)):
        for zone, subnet in zip(platform.network.zones, members, strict=True):
            aws.ec2.RouteTableAssociation(f"{kind}-{zone}", subnet_id=subnet.id, route_table_id=table.id, opts=options)
    # Models are gigabytes: over the NAT gateway each would be paid by the byte.
    aws.ec2.VpcEndpoint(
        "s3",
        vpc_id=whole.id,
        service_name=f"com.amazonaws.{platform.region}.s3",
        vpc_endpoint_type="Gateway",
        route_table_ids=[inside.id],
        opts=options,
    )
    return Vpc(id=whole.id, private=[s.id for s in private], public=[s.id for s in public])


def _subnet(
    name: str, platform: Platform, whole: aws.ec2.Vpc, cidr: str, zone: str, tags: dict[str, str], options: pulumi.ResourceOptions
) -> aws.ec2.Subnet:
    return aws.ec2.Subnet(
        name, vpc_id=whole.id, cidr_block=cidr, availability_zone=zone, tags={"Name": f"{platform.name}-{name}", **tags}, opts=options
    )
