"""Programs that run inside the walls, standard library only. The host side reads their text, never imports them."""
