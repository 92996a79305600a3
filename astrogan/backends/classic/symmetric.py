"""Symmetric monotone templates, after the SDSS deblender."""

from __future__ import annotations

import numpy as np
from scipy import ndimage, optimize

from astrogan.api import Separation, Template
from astrogan.backends.classic._detection import Detector, _integer, _number

__all__ = ["Symmetric"]


class Symmetric:
    def __init__(self, *, threshold=1.5, min_area=5, levels=32, contrast=0.005, grow=3.0, tolerance=1.0, iterations=3,
                 damp=1.0, smooth=1.0, snr0=3.0, mono=True, fitamp=False):
        self._detect = Detector(threshold, min_area, levels, contrast, grow)
        self.tolerance, self.iterations, self.damp, self.smooth, self.snr0, self.mono, self.fitamp = tolerance, iterations, damp, smooth, snr0, mono, fitamp

    def __call__(self, observation, positions=None, *, rng):
        found = self._detect(observation, positions)
        boxes = [_box(found.labels, i, p) for i, p in enumerate(found.positions)]
        data, noise = self._smoothed(found)
        models = [None]*len(boxes)
        total = np.zeros(data.shape)
        for it in range(self.iterations):
            new = []
            newtotal = np.zeros(data.shape)
            for i, (box, pos) in enumerate(zip(boxes, found.positions)):
                own = data[box]
                if it:
                    own = own - self.damp*(total[box] - models[i])
                m = self._template(own, noise[box], observation.valid[box], (pos[0]-box[2].start, pos[1]-box[1].start), found.labels[box[1:]]>=0)
                new.append(m); newtotal[box] += m
            models, total = new, newtotal
        self.total = total
        if self.fitamp:
            models = self._amps(found, models, boxes, noise)
        return Separation(tuple(Template((b[1].start,b[2].start), np.maximum(m,0)*(found.labels[b[1:]]>0) , tuple(p)) for m,b,p in zip(models,boxes,found.positions)), found.labels)

    def _smoothed(self, found):
        d = found.data.astype(float)
        s = np.stack([ndimage.gaussian_filter(p, self.smooth) for p in d])
        fac = 1/(2*np.sqrt(np.pi)*self.smooth) if self.smooth else 1
        snr = np.maximum(s,0)/found.noise
        w = snr**2/(snr**2+self.snr0**2)
        noise = found.noise*np.sqrt(w**2+((1-w)*fac)**2+2*w*(1-w)*fac**2*2)
        return w*d+(1-w)*s, noise

    def _amps(self, found, models, boxes, noise):
        B=len(found.data)
        out=[m.copy() for m in models]
        for b in range(B):
            A=np.zeros((len(models),)+found.labels.shape)
            for i,(m,bx) in enumerate(zip(models,boxes)): A[(i,)+bx[1:]]=m[b]
            ok=A.sum(0)>0
            w=1/found.noise[b][ok]
            x,_=optimize.nnls((A[:,ok]*w).T, found.data[b][ok]*w)
            for i in range(len(models)): out[i][b]*=max(x[i],1e-3)
        return out

    def _template(self, own, noise, valid, c, seg):
        cx, cy = c
        B,H,W=own.shape
        # pad to square centred
        icx, icy = int(np.floor(cx+.5)), int(np.floor(cy+.5))
        R = max(icx, W-1-icx, icy, H-1-icy)
        S=2*R+1
        big=np.zeros((B,S,S)); ok=np.zeros((B,S,S),bool); sg=np.ones((B,S,S))
        ys=slice(R-icy,R-icy+H); xs=slice(R-icx,R-icx+W)
        big[:,ys,xs]=own; ok[:,ys,xs]=valid; sg[:,ys,xs]=noise
        # rotated about (R + fx, R+fy)
        fx, fy = 2*(cx-icx), 2*(cy-icy)
        pad=np.pad(big,((0,0),(2,2),(2,2)),mode='edge')
        rot=np.stack([ndimage.shift(p[::-1,::-1],(fy,fx),order=3,mode='nearest') for p in pad])[:,2:-2,2:-2]
        okr=ok[:,::-1,::-1]; sgr=sg[:,::-1,::-1]
        diff=np.abs(big-rot)
        k=self.tolerance*np.sqrt(sg**2+sgr**2)
        t=0.5*(big+rot)-0.5*np.maximum(diff-k,0)
        t=np.where(ok&okr,t,np.where(ok,big,np.where(okr,rot,np.inf)))
        if self.mono:
            _monotone(t)
        t=np.where(np.isfinite(t),t,0)
        return np.maximum(t,0)[:,ys,xs]


def _monotone(t):
    R=t.shape[-1]//2
    for r in range(1,R+1):
        dy,dx=_ring(r)
        # parent
        f=(r-1)/r
        py,px=dy*f,dx*f
        y0,x0=np.floor(py+1e-9).astype(int),np.floor(px+1e-9).astype(int)
        wy,wx=np.clip(py-y0,0,1),np.clip(px-x0,0,1)
        y1,x1=np.where(wy>1e-9,y0+1,y0),np.where(wx>1e-9,x0+1,x0)
        P=lambda a,b:t[:,R+a,R+b]
        # on ring r-1 only one of wy,wx nonzero
        parent=P(y0,x0)*(1-wy)*(1-wx)+P(y1,x0)*wy*(1-wx)+P(y0,x1)*(1-wy)*wx+P(y1,x1)*wy*wx
        t[:,R+dy,R+dx]=np.minimum(t[:,R+dy,R+dx],parent)
    return t

def _ring(r):
    a=np.arange(-r,r+1)
    y,x=np.meshgrid(a,a,indexing='ij')
    k=np.maximum(abs(y),abs(x))==r
    return y[k],x[k]


def _box(labels, i, p):
    H,W=labels.shape
    ys,xs=np.nonzero(labels==i+1)
    R=max(np.abs(ys-p[1]).max(initial=0),np.abs(xs-p[0]).max(initial=0),3)
    R=int(np.ceil(R))+1
    x,y=int(round(p[0])),int(round(p[1]))
    return (slice(None),slice(max(y-R,0),min(y+R+1,H)),slice(max(x-R,0),min(x+R+1,W)))
