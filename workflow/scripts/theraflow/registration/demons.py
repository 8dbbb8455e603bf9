"""Deformable registration: demons, coarse to fine, on the grid of the rigidly aligned reference."""

import numpy as np
import SimpleITK as sitk

from theraflow.images import from_array, resample, to_array
from theraflow.registration.body import AIR_HU, Body
from theraflow.registration.rigid import IDENTITY, common_grid, field_of_view

LEVELS=((12.0,40,2),(8.0,30,2),(5.0,12,2))
SMOOTH=1.5
UPDATE=0.0
KIND='fast'
HU=(-200,300)
def squash(v):
    return np.interp(v,[-1000,-200,300,1200],[-300,-200,300,400]).astype(np.float32)

def deform(reference, scan, rigid, log=None):
    field=None
    for spacing,iterations,rounds in LEVELS:
        grid=common_grid([crop(reference), crop(scan)],[IDENTITY,rigid.GetInverse()],spacing) if BOX is None else BOX(reference,scan,rigid,spacing)
        fixed=resample(reference.image,grid,outside=AIR_HU); moving=resample(scan.image,grid,rigid,outside=AIR_HU)
        fs=field_of_view(reference.image,grid); ms=field_of_view(scan.image,grid,rigid)
        fixed,moving=[from_array(squash(to_array(i)),grid) for i in (fixed,moving)]
        if field is None:
            field=sitk.Image(grid.GetSize(),sitk.sitkVectorFloat64,3); field.CopyInformation(grid)
        else: field=sitk.Resample(field,grid,IDENTITY,sitk.sitkLinear,0.0)
        for r in range(rounds):
            T=transform(field); V=transform(invert(field))
            # unseen by one: takes what the other shows there
            fa,ma=to_array(fixed),to_array(moving); fsa,msa=to_array(fs)>0,to_array(ms)>0
            wm=to_array(sitk.Resample(moving,grid,T,sitk.sitkLinear,-300.0)); wf=to_array(sitk.Resample(fixed,grid,V,sitk.sitkLinear,-300.0))
            F=from_array(np.where(fsa,fa,wm),grid); M=from_array(np.where(msa,ma,wf),grid)
            if KIND=='fast': f=sitk.FastSymmetricForcesDemonsRegistrationFilter()
            else: f=sitk.DiffeomorphicDemonsRegistrationFilter()
            f.SetNumberOfIterations(iterations); f.SetStandardDeviations(SMOOTH); f.SmoothDisplacementFieldOn()
            f.SetSmoothUpdateField(UPDATE>0); f.SetUpdateFieldStandardDeviations(max(UPDATE,0.1)); f.SetMaximumUpdateStepLength(STEP*spacing)
            field=sitk.Cast(f.Execute(F,M,field),sitk.sitkVectorFloat64)
    return field
STEP=0.5

def transform(field):
    return sitk.DisplacementFieldTransform(sitk.Cast(field,sitk.sitkVectorFloat64))

def vector_image(array, like):
    image=sitk.GetImageFromArray(np.ascontiguousarray(array,dtype=np.float64),isVector=True); image.CopyInformation(like); return image

def invert(field,iterations=8):
    inverse=vector_image(np.zeros(to_array(field).shape),field)
    for _ in range(iterations):
        inverse=vector_image(-to_array(sitk.Resample(field,field,transform(inverse),sitk.sitkLinear,0.0)),field)
    return inverse

BOX=None
def crop(body):
    f=sitk.LabelShapeStatisticsImageFilter(); f.Execute(body.mask); b=f.GetBoundingBox(1)
    return sitk.RegionOfInterest(body.mask,b[3:],b[:3])
def box(reference,scan,rigid,spacing,margin=15.):
    P=[]
    for body,T in((reference,IDENTITY),(scan,rigid.GetInverse())):
        m=to_array(body.mask); idx=np.argwhere(m)[::37,::-1]
        P.append([T.TransformPoint(body.mask.TransformIndexToPhysicalPoint(i)) for i in idx.tolist()])
    P=np.concatenate([np.array(p) for p in P]); lo,hi=P.min(0)-margin,P.max(0)+margin
    size=np.ceil((hi-lo)/spacing).astype(int); g=sitk.Image(size.tolist(),sitk.sitkUInt8); g.SetSpacing([spacing]*3); g.SetOrigin(((lo+hi)/2-(size-1)/2*spacing).tolist()); return g
BOX=box
