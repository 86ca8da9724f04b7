"""Objects as flat faces in meters, and how a camera sees all of them at once."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from thermal_search.demo.canvas import PLACE, Array, Camera, Canvas, surface_table
from thermal_search.demo.materials import Surface
from thermal_search.demo.weather import Weather

NEAREST_M = 1.2
"""What is nearer to the camera is cut off."""

LONGEST_SHADOW_M = 40.0
AHEAD = np.array((0, 0, 1), np.float32)

Points = Sequence[Sequence[float]]
Direction = tuple[float, float, float]


class Mesh:
    """Faces in an object's own coordinates: to the right, up, and ahead of the camera."""

    def __init__(self) -> None:
        self.faces: list[Points] = []
        self.surfaces: list[Surface] = []
        self.facing: list[Direction | None] = []
        self.parents: list[int] = []

    def add(
        self,
        points: Points,
        surface: Surface,
        *,
        facing: Direction | None = None,
        on: int | None = None,
    ) -> int:
        """Adds a face that is seen from where `facing` points, or from both sides without it.

        `on` is the face that it is a detail of. Returns the face's number.
        """
        number = len(self.faces)
        self.faces.append(points)
        self.surfaces.append(surface)
        self.facing.append(facing)
        self.parents.append(number if on is None else on)
        return number

    def front(
        self, left: float, low: float, right: float, high: float, surface: Surface, z: float = 0.0
    ) -> int:
        """Adds a rectangle that faces the camera."""
        return self.add(
            [(left, low, z), (left, high, z), (right, high, z), (right, low, z)], surface
        )

    def ellipse(
        self, x: float, y: float, width: float, height: float, surface: Surface, z: float = 0.0
    ) -> int:
        """Adds an ellipse that faces the camera."""
        points = [(x + width / 2 * c, y + height / 2 * s, z) for c, s in CIRCLE]
        return self.add(points, surface)


CIRCLE = [(float(np.cos(a)), float(np.sin(a))) for a in np.arange(12) * (np.pi / 6)]
"""Corners of a polygon that looks round, at radius 1."""


class World:
    """The faces of all objects of a street, in one array."""

    def __init__(
        self,
        meshes: Sequence[Sequence[Mesh]],
        x: Sequence[float],
        is_background: Sequence[bool],
        weather: Weather,
    ) -> None:
        """`meshes`: of each object, one for each pose of its movement."""
        faces: list[Points] = []
        surfaces: list[Surface] = []
        facing: list[Direction | None] = []
        parents: list[int] = []
        owners: list[tuple[int, int, int]] = []
        for number, poses in enumerate(meshes):
            for pose, mesh in enumerate(poses):
                parents += [len(faces) + parent for parent in mesh.parents]
                owners += [(number, pose, len(poses))] * len(mesh.faces)
                faces += mesh.faces
                surfaces += mesh.surfaces
                facing += mesh.facing
        self.x = np.array(x, np.float32)
        self.is_background = np.array(is_background)
        self.owner, self.pose, self.poses = np.array(owners).T
        self.parents = np.array(parents)
        lengths = np.array([len(face) for face in faces])
        self.ends = np.cumsum(lengths)
        self.starts = self.ends - lengths
        self.vertices = np.array([p for face in faces for p in face], np.float32)
        self.vertex_owner = np.repeat(self.owner, lengths)
        self.centers = np.add.reduceat(self.vertices, self.starts) / lengths[:, None]
        self.is_flat = np.array([direction is None for direction in facing])
        # What is seen from both sides is seen from the camera's.
        ahead = np.array([direction or (0, 0, -1) for direction in facing], np.float32)
        self.normals = self._normals(ahead)
        lit = np.clip(self.normals @ weather.sun, 0, 1)
        self.table = surface_table(surfaces, weather, lit)

    def _normals(self, ahead: Array) -> Array:
        a, b, c = (self.vertices[self.starts + corner] for corner in range(3))
        normals = np.cross(b - a, c - b)
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-6)
        return normals * np.sign((normals * ahead).sum(1, keepdims=True))

    def draw_faces(self, canvas: Canvas, z: Array, frame: int) -> None:
        """Draws what the camera sees if the objects are at `z`, the farthest faces first."""
        camera = canvas.camera
        places = np.stack([self.x, np.zeros_like(z), z], axis=1)
        viewpoint = np.array([camera.x, camera.y, camera.z], np.float32)
        centers = self.centers + (places - viewpoint)[self.owner]
        is_visible = (centers[:, 2] > 0) & (self.pose == frame % self.poses)
        is_visible &= self.is_flat | ((centers * self.normals).sum(1) < 0)
        points = self.vertices + places[self.vertex_owner]
        is_near = points[:, 2] < camera.z + NEAREST_M
        pixels = camera.project(np.where(is_near[:, None], viewpoint + AHEAD, points))
        is_cut = np.logical_or.reduceat(is_near, self.starts)
        low = np.minimum.reduceat(pixels, self.starts)
        high = np.maximum.reduceat(pixels, self.starts)
        is_visible &= is_cut | ((high > 0).all(1) & (low < canvas.size).all(1))
        is_visible &= is_visible[self.parents]
        chosen = np.flatnonzero(is_visible)
        distance = np.linalg.norm(centers, axis=1)[self.parents[chosen]]
        owner = self.owner[chosen]
        order = np.lexsort((chosen, -distance, -z[owner], ~self.is_background[owner]))
        chosen = chosen[order]

        flat = pixels.ravel().tolist()
        polygons: list[list[float]] = []
        for number in chosen.tolist():
            start, end = self.starts[number], self.ends[number]
            if is_cut[number]:
                polygons.append(project_clipped(camera, points[start:end]))
            else:
                polygons.append(flat[2 * start : 2 * end])
        ahead = np.maximum(centers[chosen, 2], NEAREST_M)
        rows = self.table[chosen]
        rows[:, PLACE] = np.stack(
            [ahead, *pixels[self.starts[chosen]].T, ahead / camera.focal_y], axis=1
        )
        canvas.draw_faces(polygons, rows)


class Shadows:
    """The shadows that boxes throw onto the ground."""

    def __init__(self, x: Array, sizes: Array, weather: Weather) -> None:
        """`sizes` [n, 3]: meters across, along and up."""
        across, along, up = sizes.T[:, :, None]
        reach = np.minimum(up / weather.sun[1], LONGEST_SHADOW_M)
        right, ahead = (np.sign(-weather.sun[axis]) or 1.0 for axis in (0, 2))
        tip = np.abs(weather.sun[[0, 2]]) * reach
        # The hull of a rectangle and its copy, if the shadow falls to the right and ahead.
        u = np.array([-1, 1, 1, 1, -1, -1]) * across / 2 + np.array([0, 0, 1, 1, 1, 0]) * tip[:, :1]
        v = np.array([-1, -1, -1, 1, 1, 1]) * along / 2 + np.array([0, 0, 1, 1, 1, 0]) * tip[:, 1:]
        outline = np.stack([u * right + x[:, None], np.zeros_like(u), v * ahead], axis=-1)
        self.outline = outline.astype(np.float32)
        self.is_sunny = weather.insolation > 0

    def throw(self, canvas: Canvas, z: Array) -> None:
        if not self.is_sunny:
            return
        outlines = self.outline.copy()
        outlines[..., 2] += z[:, None]
        for outline in outlines[outlines[..., 2].max(1) > canvas.camera.z + NEAREST_M]:
            canvas.darken(project_clipped(canvas.camera, outline))


def project_clipped(camera: Camera, points: Array) -> list[float]:
    """The corners of a polygon's part in front of the camera, x and y in turn."""
    nearest = camera.z + NEAREST_M
    if (points[:, 2] < nearest).any():
        points = _clip(points, nearest)
    return camera.project(points).ravel().tolist() if len(points) > 2 else []


def _clip(points: Array, nearest: float) -> Array:
    kept: list[Any] = []
    corners: list[list[float]] = points.tolist()
    for start, end in zip(corners, corners[1:] + corners[:1], strict=True):
        if start[2] >= nearest:
            kept.append(start)
        if (start[2] >= nearest) != (end[2] >= nearest):
            share = (nearest - start[2]) / (end[2] - start[2])
            kept.append([a + (b - a) * share for a, b in zip(start, end, strict=True)])
    return np.array(kept, dtype=np.float32).reshape(-1, 3)
