"""The form: rig, engine, store, policy, views, and what becomes of the live view.

Owns the fields and what they say together. Starts nothing.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from livesr.base.config import RigConfig, data_folders, load_rig
from livesr.base.errors import ConfigError, LiveSRError
from livesr.gui.control import Choice
from livesr.gui.qt import QtCore, QtWidgets
from livesr.live.inference.engine import engine_folders, load_engine
from livesr.live.sources.triggered import trigger_of

_STORE = "run.ome.zarr"
_POLICIES = (
    ("latest", "Newest first", "Skips predictions when the network is slower than the camera."),
    ("complete", "Complete", "Skips nothing; the picture falls behind where the network is slow."),
)
_VIEWS = (
    (None, "One", "The network sees each frame once."),
    ("half-turn", "Mean of 2", "The mean of the frame and of it turned by 180 degrees."),
    ("flips", "Mean of 4", "The mean of the frame and of its mirror images: nearer to the truth."),
    ("d4", "Mean of 8", "The mean of all turns and mirror images; of square frames only."),
)
_LIVE = (
    ("own", "Record every frame", "Takes every frame; other previews show what this widget feeds."),
    ("peek", "Newest frames only", "Looks at the newest frame, and may miss some. Not for SIM."),
    ("off", "Leave it alone", "Only acquisitions (MDA) are recorded."),
)


class Form(QtWidgets.QWidget):
    """What a person chooses before a session.

    Attributes
    ----------
    rig_chosen : Qt signal; another rig is named, whether or not it can be read
    """

    rig_chosen = QtCore.Signal()

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self.rig: RigConfig | None = None
        self.problem = ""
        self.rig_name = QtWidgets.QComboBox()
        self.rig_name.setEditable(True)
        self.rig_name.addItems(rig_names())
        self.engine = QtWidgets.QComboBox()
        self.store_wanted = QtWidgets.QCheckBox()
        self.store_wanted.setChecked(True)
        self.store_wanted.setToolTip("Keep what is acquired; without, it is only shown.")
        self.store = QtWidgets.QLineEdit(str(Path.home() / "livesr" / _STORE))
        self.store.setToolTip("Every run gets a store of its own: a name that exists gets a number")
        self.policy = _combo(_POLICIES)
        self.views = _combo(_VIEWS)
        self.live = _combo(_LIVE)
        self._live_wanted = 0
        for combo in (self.rig_name, self.engine, self.policy, self.views, self.live):
            combo.setSizePolicy(
                QtWidgets.QSizePolicy.Policy.Expanding, combo.sizePolicy().verticalPolicy()
            )
            combo.setMinimumContentsLength(10)
            combo.setSizeAdjustPolicy(
                QtWidgets.QComboBox.SizeAdjustPolicy.AdjustToMinimumContentsLengthWithIcon
            )
        self._lay_out()
        self.store_wanted.toggled.connect(self.store.setEnabled)
        self.rig_name.currentTextChanged.connect(self._read_rig)
        self._read_rig()

    def _lay_out(self) -> None:
        form = QtWidgets.QFormLayout(self)
        form.setContentsMargins(0, 0, 0, 0)
        form.setFieldGrowthPolicy(QtWidgets.QFormLayout.FieldGrowthPolicy.ExpandingFieldsGrow)
        form.addRow("Rig", _beside(self.rig_name, _button(self._find_rig, "Find a rig.yaml")))
        form.addRow("Engine", self.engine)
        form.addRow(
            "Store",
            _beside(self.store_wanted, self.store, _button(self._find_store, "Choose a folder")),
        )
        form.addRow("Policy", self.policy)
        form.addRow("Views", self.views)
        form.addRow("Live view", self.live)

    def summary(self) -> str:
        """Return what is chosen, in a line."""
        kept = Path(self.store.text()).name if self.store_wanted.isChecked() else "not kept"
        words = (self.rig_name.currentText(), self.engine.currentText(), kept)
        views = self.views.currentText()
        averaged = (views.lower() + " views",) if self.views.currentData() else ()
        return " · ".join((*words, self.policy.currentText(), *averaged))

    def choice(self) -> Choice:
        """Return what is chosen.

        Raises
        ------
        ConfigError
            If a store is wanted and not named: nothing would be kept.
        """
        store = self.store.text().strip()
        if self.store_wanted.isChecked() and not store:
            raise ConfigError(
                "Store is ticked and names no folder, so that nothing would be kept: name one, such"
                f" as {Path.home() / 'livesr' / _STORE}, or take the tick away."
            )
        return Choice(
            rig=self.rig_name.currentText().strip(),
            engine=self.engine.currentData(),
            store=Path(store).expanduser() if self.store_wanted.isChecked() else None,
            policy=self.policy.currentData(),
            live=self.live.currentData(),
            ensemble=self.views.currentData(),
        )

    def choose(self, *, rig: str | None = None, store: Path | None = None) -> None:
        """Set what is known from elsewhere."""
        if rig is not None:
            self.rig_name.setCurrentText(rig)
        if store is not None:
            self.store.setText(str(store))

    def _read_rig(self) -> None:
        try:
            self.rig, self.problem = load_rig(self.rig_name.currentText().strip()), ""
        except LiveSRError as e:
            self.rig, self.problem = None, str(e)
        self._offer_engines()
        self._offer_live()
        self.rig_chosen.emit()

    def _offer_live(self) -> None:
        triggered = self.rig is not None and trigger_of(self.rig) is not None
        if self.live.isEnabled():
            self._live_wanted = self.live.currentIndex()
        self.live.setEnabled(not triggered)
        off = self.live.findData("off")
        self.live.setCurrentIndex(off if triggered else self._live_wanted)
        self.live.setToolTip(
            "The rig's pattern display runs in acquisitions (MDA) only."
            if triggered
            else _tips(_LIVE)
        )

    def _offer_engines(self) -> None:
        before = self.engine.currentData()
        named = dict.fromkeys(
            str(channel.separate)
            for channel in (self.rig.channels.values() if self.rig else ())
            if channel.separate
        )
        self.engine.clear()
        self.engine.addItem(f"{', '.join(named) or 'none'} (the rig's)", None)
        for name in separating_engines():
            self.engine.addItem(name, name)
        self.engine.addItem("none: measure only", "none")
        self.engine.setCurrentIndex(max(self.engine.findData(before), 0) if before else 0)

    def _find_rig(self) -> None:
        name, _ = QtWidgets.QFileDialog.getOpenFileName(
            self, "Rig", self.rig_name.currentText(), "rig.yaml (*.yaml)"
        )
        if name:
            self.rig_name.setCurrentText(name)

    def _find_store(self) -> None:
        folder = QtWidgets.QFileDialog.getExistingDirectory(
            self, "Folder of the stores", str(Path(self.store.text()).parent)
        )
        if folder:
            self.store.setText(str(Path(folder) / (Path(self.store.text()).name or _STORE)))


def rig_names() -> list[str]:
    """Return the rigs that have a name, as `livesr info` lists them."""
    folders = data_folders("hardware_configs")
    return sorted({p.parent.name for folder in folders for p in folder.glob("[!_]*/rig.yaml")})


def separating_engines() -> list[str]:
    """Return the engines that separate; one that cannot be read is none."""
    found: list[str] = []
    for name, folder in engine_folders().items():
        try:
            if load_engine(folder).manifest.task == "separate":
                found.append(name)
        except LiveSRError:
            continue
    return found


def _combo(entries: tuple[tuple[str | None, str, str], ...]) -> QtWidgets.QComboBox:
    combo = QtWidgets.QComboBox()
    for n, (data, text, tip) in enumerate(entries):
        combo.addItem(text, data)
        combo.setItemData(n, tip, cast("Any", QtCore.Qt.ItemDataRole.ToolTipRole))
    combo.setToolTip(_tips(entries))
    return combo


def _tips(entries: tuple[tuple[str | None, str, str], ...]) -> str:
    return "\n".join(f"{text}: {tip}" for _, text, tip in entries)


def _button(clicked: Any, tip: str) -> QtWidgets.QToolButton:
    button = QtWidgets.QToolButton()
    button.setText("…")
    button.setToolTip(tip)
    button.clicked.connect(clicked)
    return button


def _beside(*widgets: QtWidgets.QWidget) -> QtWidgets.QWidget:
    row = QtWidgets.QWidget()
    layout = QtWidgets.QHBoxLayout(row)
    layout.setContentsMargins(0, 0, 0, 0)
    for widget in widgets:
        layout.addWidget(widget, stretch=int(not isinstance(widget, QtWidgets.QCheckBox)))
    layout.setStretch(layout.count() - 1, 0)
    return row
