package directory

import (
	"context"
	"slices"
	"strings"

	"github.com/sallyport-iam/sallyport"
	"github.com/sallyport-iam/sallyport/authz"
)

// Region is a place where namespaces can be, from the configuration.
type Region struct {
	ID            string // "aws-us-east-1"
	CloudProvider string // "aws", "gcp", "azure"
	CloudRegion   string // "us-east-1"
	Location      string // "US East (N. Virginia)"
	Cell          string // the data-plane deployment that serves it
}

// Regions lists the regions by id.
func (d *Directory) Regions(_ context.Context, caller sallyport.Caller) ([]Region, error) {
	if err := check(caller, authz.RegionList); err != nil {
		return nil, err
	}
	return slices.Clone(d.regions), nil
}

// Region gives one region; NotFound if there is none of that id.
func (d *Directory) Region(_ context.Context, caller sallyport.Caller, id string) (Region, error) {
	if err := check(caller, authz.RegionGet); err != nil {
		return Region{}, err
	}
	r, ok := d.region(id)
	if !ok {
		return Region{}, sallyport.NotFound.Errorf("there is no region %q; GetRegions lists them", id)
	}
	return r, nil
}

func (d *Directory) region(id string) (Region, bool) {
	i, ok := slices.BinarySearchFunc(d.regions, id, func(r Region, id string) int { return strings.Compare(r.ID, id) })
	if !ok {
		return Region{}, false
	}
	return d.regions[i], true
}
